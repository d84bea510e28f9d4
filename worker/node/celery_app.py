"""The Celery app of a worker: options, the task, the sweep, and what happens at start and stop.

`drain` is the one task that delivers. Losing its message is harmless, and so is running it twice.

All that can be loaded is loaded before a process is forked. A broker that went away is connected to
again and again, for as long as the worker runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn

import billiard
import structlog
from celery import Celery, bootsteps, signals
from celery.concurrency.prefork import TaskPool as Prefork
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from segrelay.worker import logs
from segrelay.worker.adapters.redis.gate import forget_rates
from segrelay.worker.batch.partition import BATCH_ENTRIES, Stop, Tally
from segrelay.worker.batch.read import BATCH_ENTRIES_BESIDE_LIVE
from segrelay.worker.contract.celery import (
    DRAIN_TASK,
    TASKS_MODULES,
    BackgroundJob,
    ResultLine,
    Turn,
    broker_options,
    queue_name,
)
from segrelay.worker.contract.own_processes import processors
from segrelay.worker.contract.printable import LAYOUT, printable
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import (
    connect,
    resolve_broker_url,
    resolve_url,
    wait_ready,
)
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import BACKFILL, LIVE
from segrelay.worker.core.rounds import WakeUp
from segrelay.worker.errors import (
    Bug,
    DrainEndedBadly,
    RedisUnavailable,
    SegrelayError,
    UsageWrong,
    WeMustAct,
)
from segrelay.worker.logs import log_bug
from segrelay.worker.node.shared import Call, NodeMemory, NodeWaker, TemplateUse, listening
from segrelay.worker.node.sweep import SILENCE_SECONDS, Sweep, SweepStep, sweep_of

if TYPE_CHECKING:
    from segrelay.worker.node.runtime import Runtime

MOST_BETWEEN_TRIES_SECONDS: Final = 2
"""The longest pause between two tries: Redis' restart is noticed within 10 s."""
_REFUSED_SECONDS: Final = 1.0
EVENTS_SECONDS: Final = 0.2
"""The seconds after which Flower is told of a task, with what others have done meanwhile."""


class PatientConsumer(Consumer):
    """Tries to reach the broker without end, at least every two seconds.

    What Flower is told of tasks is sent a few times a second: each sending waits for Redis and its
    disk, and with it the event loop that hands messages to processes.

    It does not use Celery's gossip between workers: what they share stands in Redis, and gossip
    costs a second at the start and a traceback in the log whenever the broker goes away.
    """

    def __init__(
        self, *arguments: Any, worker_options: dict[str, Any] | None = None, **options: Any
    ) -> None:
        alone = {"without_gossip": True, "without_mingle": True}
        self._flushes_at = 0.0
        super().__init__(*arguments, worker_options=(worker_options or {}) | alone, **options)

    def on_send_event_buffered(self) -> None:
        """Send what is told of tasks within a moment, together with what comes until then.

        Only a time is remembered: what was planned is forgotten with a connection that is lost.
        """
        now = time.monotonic()
        if now >= self._flushes_at:
            self._flushes_at = now + EVENTS_SECONDS
            self.timer.call_after(EVENTS_SECONDS, self._flush_events)

    def ensure_connected(self, conn: Any) -> Any:
        """Try to connect until that succeeds, or until the worker is told to stop."""

        def tell(error: BaseException, _interval: float) -> None:
            LOG.warning("broker.unreachable", error=str(error))

        most = MOST_BETWEEN_TRIES_SECONDS
        conn.ensure_connection(tell, None, 1, 1, most, callback=maybe_shutdown)
        self.first_connection_attempt = False
        return conn

    def on_connection_error_before_connected(self, exc: BaseException) -> None:
        """Wait a moment before the next try, e.g. while a Redis that was replaced refuses commands.

        Celery tries again at once, and again and again.
        """
        LOG.warning("broker.refuses", error=str(exc))
        time.sleep(_REFUSED_SECONDS)


class StartingStep(bootsteps.Step):
    """Checks Redis, and makes the state that the processes share; a step of Celery's worker."""

    name = "Starting"
    requires = ("celery.worker.components:Pool",)
    conditional = False

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        try:
            _refuse_other_pools(worker)
            check_redis(worker.app.segrelay.settings)
        except SegrelayError as error:
            refuse(error)
        worker.app.segrelay.begin(worker.max_concurrency or worker.concurrency)


def check_redis(settings: Settings) -> None:
    """Wait for Redis, claim it, and warn if its settings keep less than we promise.

    Raises:
        RedisUnavailable: It was not ready in time.
        RedisMismatch: It can't be used with this configuration.
    """
    url = resolve_url(settings.redis)
    for warning in wait_ready(url, replicas=settings.redis.replicas):
        LOG.warning("redis.weak", message=warning)
    with closing(connect(url)) as client:
        claim(client, settings)
        forget_rates(client, settings.destinations.values())


def refuse(error: SegrelayError) -> NoReturn:
    """End this process with a message and its exit code, without a traceback."""
    sys.stderr.write(printable(error.message, keep=LAYOUT) + "\n")
    raise SystemExit(error.exit_code) from None


def _refuse_other_pools(worker: Any) -> None:
    """Refuse other pools: a drain uses the signals, event loop and permits of a process."""
    if not issubclass(worker.pool_cls, Prefork):
        raise UsageWrong("Drains run in processes: use --pool prefork (the default).")
    if worker.pool_start_method != "fork":
        raise UsageWrong("The processes of a worker are forked: leave --pool-start-method at fork.")


NO_FREE_PERMIT: Final = "no free permit"
LIVE_TURNS: Final = 4
"""The number of waiting live calls of a destination that may follow a drain in its permit."""
STOP_AT_MOST_SECONDS: Final = 10.0
"""The seconds that a pool gets to come to its end; drains are cut after 2.5 s."""
LOG: Final = structlog.get_logger()
_HARD_LIMIT_SECONDS: Final = 120
"""The seconds after which a hanging task is ended, far above what a drain takes."""
_PROCESSES_A_CORE: Final = 2
"""The number of processes for each core: while one waits for an answer, another one renders."""
_PROCESSES_BESIDE: Final = 2
"""The processes beside those: one stays free, and one is for live work, which mostly waits."""
_WORKER_OPTIONS: Final = {
    "task_time_limit": _HARD_LIMIT_SECONDS,
    "worker_consumer": f"{PatientConsumer.__module__}:{PatientConsumer.__qualname__}",
    "worker_redirect_stdouts": False,
    "imports": TASKS_MODULES,
    "worker_enable_prefetch_count_reduction": False,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
}


@dataclass(slots=True, eq=False)
class Node:
    """The node as the app's steps and tasks reach it: the app's attribute `segrelay`.

    It is made before the fork and used in each child.

    Args:
        build: A function that opens the clients and templates of a process.
        load: A function that loads what the processes share, before the first fork; it returns the
            triggers that can't be worked on, and why.
        silence_seconds: The time of waking in vain after which the node counts as broken, see
            `Sweep`.

    Attributes:
        waker: The sender of messages, which connects when it is first used.
        runtime: The clients and templates of this process, once they are open.
    """

    settings: Settings
    build: Callable[[], Runtime]
    load: Callable[[], Mapping[str, str]]
    silence_seconds: float
    waker: NodeWaker
    memory: NodeMemory = field(init=False)
    runtime: Runtime | None = None

    def begin(self, processes: int) -> None:
        """Make the state that all processes share, before the first of them is forked."""
        self.memory = NodeMemory(processes, self.settings.destinations)
        self.memory.templates.report(os.getpid(), TemplateUse(stopped=self.load()))

    def begin_process(self, **_: Any) -> None:
        """Count a process that begins, and open its clients and templates, so that no event waits.

        If it can't be built, the first task tries again and reports the error.
        """
        self.memory.count_process()
        with contextlib.suppress(SegrelayError):
            self.ready()

    def ready(self) -> Runtime:
        """Return this process' clients and templates; the first call opens them."""
        if self.runtime is None:
            self.runtime = self.build()
        return self.runtime

    def drain(self, call: WakeUp) -> list[tuple[int, Tally]] | None:
        """Drain, and wake again where there is more to do.

        Live work that waits for the permit follows, before another drain can take the permit.

        Returns:
            Partitions and what was done there, first that of the call; None if no permit is free.

        Raises:
            UsageWrong: There is no such destination or partition.
        """
        memory = self.memory
        memory.board.begin()
        permit = memory.permits.take(call)
        if permit is None:
            memory.waiting.add(call)
            return None
        again: list[Call] = []
        done: list[tuple[int, Tally]] = []
        following: WakeUp | None = call
        try:
            with permit, listening(memory.board) as stop:
                while following is not None:
                    done.append((following.partition, self._drain(following, stop, again)))
                    may_follow = len(done) <= LIVE_TURNS and not stop.is_told
                    following = memory.waiting.next_live(call.destination) if may_follow else None
        finally:
            # Whoever waits for the permit is woken first, and only then this partition.
            job_runs = memory.permits.background_job_runs
            waits = memory.waiting.next_after(call, job_runs=job_runs)
            self.waker.wake([*([waits] if waits else []), *again])
        return done

    def _drain(self, call: WakeUp, stop: Stop, again: list[Call]) -> Tally:
        begun = time.monotonic()
        runtime, is_live = self.ready(), call.queue == LIVE
        beside_live = not is_live and self.memory.permits.live_is_recent()
        tally, queue = runtime.drain(
            call.destination,
            call.partition,
            stop,
            live_waits=self.memory.waiting.holds_live,
            kinds=(LIVE,) if is_live else (LIVE, BACKFILL),
            batch_entries=BATCH_ENTRIES_BESIDE_LIVE if beside_live else BATCH_ENTRIES,
        )
        self.memory.templates.report(os.getpid(), runtime.upkeep.template_use())
        if queue:
            again.append(call._replace(queue=queue))
        did_something = tally.requests or tally.delivered or tally.skipped or tally.dead
        (LOG.info if did_something else LOG.debug)(
            "drain.ended",
            destination=call.destination,
            partition=call.partition,
            queue=call.queue,
            elapsed_seconds=round(time.monotonic() - begun, 3),
            **asdict(tally),
        )
        return tally

    def sweep(self, pool: Any) -> Sweep:
        """Return the sweep of this node."""
        sweep = sweep_of(self.settings, self.memory, NodeWaker(self.settings), pool)
        sweep.silence_seconds = self.silence_seconds
        return sweep

    @contextlib.contextmanager
    def turn(self, background_job: BackgroundJob) -> Iterator[Turn | None]:
        """Yield this node's turn for a background job; None if it has to wait for it.

        Whoever gives a permit back wakes what waits for it.
        """
        permit = self.memory.permits.take_for_background_job()
        if permit is None:
            self.memory.waiting.add(background_job)
            yield None
            return
        broker = connect(resolve_broker_url(self.settings.redis), timeout_seconds=_TIMEOUT_SECONDS)
        try:
            with permit, closing(broker), listening(self.memory.board) as stop:
                yield NodeTurn(self.memory, stop, broker)
        finally:
            waiting = self.memory.waiting.next_after(WakeUp(BACKFILL, "", 0))
            if waiting:
                self.waker.wake([waiting])

    def wake(self, background_jobs: Iterable[BackgroundJob]) -> None:
        """Send messages for background jobs."""
        self.waker.wake(background_jobs)

    def tell_to_stop(self, **_: Any) -> None:
        """Tell all drains of this node to stop; called within a signal's handler."""
        if hasattr(self, "memory"):
            self.memory.board.tell_to_stop()
            last_word = threading.Timer(STOP_AT_MOST_SECONDS, end_at_once, (self.memory,))
            last_word.daemon = True
            last_word.start()


def end_at_once(node: NodeMemory) -> None:
    """End this node's processes: Celery's pool does not come to its end by itself.

    By now every drain has settled or was cut; if none runs, nothing is left open.
    """
    orderly = node.permits.are_free()
    LOG.warning("worker.ended_at_once", drains_ended=orderly)
    for child in billiard.active_children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    os._exit(0 if orderly else 1)


def build_app(
    settings: Settings,
    build: Callable[[], Runtime],
    *,
    load: Callable[[], Mapping[str, str]] = dict,
    silence_seconds: float = SILENCE_SECONDS,
) -> Any:
    """Return the Celery app of a worker.

    Raises:
        RedisUnavailable: The embedded Redis can't be started.
    """
    # Celery would look for them in the current folder first, where somebody else's may lie.
    for name in TASKS_MODULES:
        import_module(name)
    app = Celery("segrelay")
    app.conf.update(broker_options(settings) | _WORKER_OPTIONS)
    app.conf.worker_concurrency = _PROCESSES_A_CORE * processors() + _PROCESSES_BESIDE
    app.segrelay = node = Node(settings, build, load, silence_seconds, NodeWaker(settings))
    _register(app, node)
    app.steps["worker"].add(StartingStep)
    app.steps["consumer"].add(SweepStep)
    signals.worker_process_init.connect(node.begin_process, weak=False)
    signals.worker_shutting_down.connect(node.tell_to_stop, weak=False)
    signals.setup_logging.connect(_set_up_logging, weak=False)
    return app


def _register(app: Any, node: Node) -> None:
    """Make `drain` a task of the app."""

    @app.task(name=DRAIN_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
    def drain(self: Any, destination: str, partition: int) -> ResultLine:
        """Drain one partition of one destination for a slice."""
        info = self.request.delivery_info or {}
        queue = BACKFILL if info.get("routing_key") == queue_name(BACKFILL) else LIVE
        named = {"destination": str(destination)[:100], "partition": partition}
        try:
            done = node.drain(WakeUp(queue, destination, partition))
        except SegrelayError as error:
            tell = LOG.error if isinstance(error, WeMustAct) else LOG.warning
            tell("drain.failed", **named, error=type(error).__name__, message=error.message)
            raise
        except Exception as error:  # noqa: BLE001 - this is the edge
            # Its message may hold a profile's fields, and Flower would show it.
            raise Bug(log_bug(error, "drain.failed", **named)) from None
        if done is None:
            return ResultLine(NO_FREE_PERMIT)
        total = Tally.of([tally for _, tally in done])
        others = [str(number) for number, _ in done[1:]]
        line = f"{total}; with partition {', '.join(others)}" if others else str(total)
        if total.is_bad:
            raise DrainEndedBadly(line)
        return ResultLine(line)


def _set_up_logging(loglevel: int, logfile: str | None, **_: Any) -> None:
    logs.configure(loglevel, logfile)


_TIMEOUT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class NodeTurn:
    """The turn of one background job in a node; see `segrelay.worker.contract.celery.Turn`."""

    node: NodeMemory
    stop: Stop
    broker: Redis

    def is_over(self) -> bool:
        """Say whether the job should end its step, because the node stops or live work waits."""
        return self.stop.is_told or self.node.waiting.holds_live() or self._live_is_queued()

    def _live_is_queued(self) -> bool:
        try:
            return bool(self.broker.llen(queue_name(LIVE)))
        except RedisUnavailable:
            return True

"""Builds the Celery app: options, the task, the sweep, and what happens at start and stop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

import billiard
import redis
import structlog
from celery import Celery, signals

from worker import logs
from worker.batch.sending.interrupt_watch import Stop
from worker.contract.celery.messages import TASKS_MODULES, Errand, Turn
from worker.contract.celery.options import VERSION_KEY, broker_options
from worker.contract.celery.wire import queue_name
from worker.contract.processes.processors import processors
from worker.contract.redis.connection import connect, redis_errors, resolve_broker_url
from worker.contract.settings import Settings
from worker.contract.words import BACKFILL, LIVE
from worker.core.rounds import Ring
from worker.errors import RedisUnavailable, SegrelayError
from worker.node.connecting import PatientConsumer
from worker.node.ringing import Ringer
from worker.node.shared.node import NodeMemory
from worker.node.shared.stop import listening
from worker.node.starting import StartingStep
from worker.node.sweep import SILENCE_SECONDS, Sweep, SweepStep, sweep_of
from worker.node.task import DrainTask, Ready, register

STOP_AT_MOST_SECONDS: Final = 10.0
"""The seconds that a pool gets to come to its end; drains are cut after 2.5 s."""
LOG: Final = structlog.get_logger()
_HARD_LIMIT_SECONDS: Final = 120
"""The seconds after which a hanging task is ended, far above what a drain takes."""
_PROCESSES_A_CORE: Final = 2
"""The number of processes for each core: while one waits for an answer, another one renders."""
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
class Edge:
    """The node as the app's steps and tasks reach it: the app's attribute `segrelay`.

    Args:
        load: Loads, before the first fork, what the processes share; returns the triggers that
            can't be worked on.
        silence_seconds: See `worker.node.sweep`.
    """

    app: Any
    settings: Settings
    build: Callable[[], Ready]
    load: Callable[[], frozenset[str]]
    silence_seconds: float
    node: NodeMemory | None = None
    ringer: Ringer = field(init=False)
    _task: DrainTask | None = None

    def __post_init__(self) -> None:
        """Make the ringer, which connects when it is first used."""
        self.ringer = Ringer(self.app)

    def begin(self, processes: int) -> None:
        """Make the state that all processes share, before the first of them is forked."""
        self.node = NodeMemory.of(processes, self.settings.destinations)
        self.node.stopped.write(self.load())
        self._task = DrainTask(self.settings, self.build, self.ringer, self.node)

    def task(self) -> DrainTask:
        """Return the object that does the work of the task `drain`."""
        assert self._task is not None
        return self._task

    def get_ready(self, **_: Any) -> None:
        """Open clients and templates as a process begins, so that no event waits for them.

        If it can't be built, the first task tries again and reports the error.
        """
        with contextlib.suppress(SegrelayError):
            self.task().get_ready()

    def sweep(self, pool: Any) -> Sweep:
        """Return the sweep of this node."""
        assert self.node is not None
        sweep = sweep_of(self.settings, self.node, Ringer(self.app), pool)
        sweep.silence_seconds = self.silence_seconds
        return sweep

    @contextlib.contextmanager
    def turn(self) -> Iterator[Turn | None]:
        """Yield this node's turn for an errand, or None if it is not free; see `Turns`.

        When the turn ends, a drain that waits for the slot is rung for.
        """
        assert self.node is not None
        slot = self.node.slots.take_for_errand()
        if slot is None:
            yield None
            return
        with (
            slot,
            listening(self.node.board) as stop,
            node_turn(self.settings, self.node, stop) as turn,
        ):
            yield turn
        waiting = self.node.waiting.next_after(Ring(BACKFILL, "", 0))
        if waiting:
            self.ringer.ring([waiting])

    def ring(self, errands: Iterable[Errand]) -> None:
        """Send messages for errands."""
        self.ringer.ring_errands(errands)

    def tell_to_stop(self, **_: Any) -> None:
        """Tell all drains of this node; called within a signal's handler."""
        if self.node is not None:
            self.node.board.tell_to_stop()
            last_word = threading.Timer(STOP_AT_MOST_SECONDS, end_at_once, (self.node,))
            last_word.daemon = True
            last_word.start()


def end_at_once(node: NodeMemory) -> None:
    """End this node's processes: Celery's pool does not come to its end by itself.

    By now every drain has settled or was cut; if none runs, nothing is left open.
    """
    orderly = node.slots.are_free()
    LOG.warning("worker.ended_at_once", drains_ended=orderly)
    for child in billiard.active_children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    os._exit(0 if orderly else 1)


def build_app(
    settings: Settings,
    build: Callable[[], Ready],
    *,
    load: Callable[[], frozenset[str]] = frozenset,
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
    app.conf[VERSION_KEY] = version("segrelay")
    app.conf.worker_concurrency = _PROCESSES_A_CORE * processors() + 1
    edge = Edge(app, settings, build, load, silence_seconds)
    app.segrelay = edge
    register(app, edge.task)
    app.steps["worker"].add(StartingStep)
    app.steps["consumer"].add(SweepStep)
    signals.worker_process_init.connect(edge.get_ready, weak=False)
    signals.worker_shutting_down.connect(edge.tell_to_stop, weak=False)
    signals.setup_logging.connect(_set_up_logging, weak=False)
    return app


def _set_up_logging(loglevel: int, logfile: str | None, **_: Any) -> None:
    logs.configure(loglevel, logfile)


_TIMEOUT_SECONDS: Final = 1.0


@contextmanager
def node_turn(settings: Settings, node: NodeMemory, stop: Stop) -> Iterator[NodeTurn]:
    """Yield the turn of one errand."""
    url = resolve_broker_url(settings.redis)
    with closing(connect(url, timeout_seconds=_TIMEOUT_SECONDS)) as broker:
        yield NodeTurn(node, stop, broker)


@dataclass(frozen=True, slots=True)
class NodeTurn:
    """The turn of one errand in a node; see `worker.contract.celery.messages.Turn`."""

    node: NodeMemory
    stop: Stop
    broker: redis.Redis

    def is_over(self) -> bool:
        """Say whether the errand should end, because the node stops or a drain waits."""
        return self.stop.is_told or self.node.waiting.holds_any() or self._live_is_queued()

    def _live_is_queued(self) -> bool:
        try:
            with redis_errors():
                return bool(self.broker.llen(queue_name(LIVE)))
        except RedisUnavailable:
            return True

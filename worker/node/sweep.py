"""The sweep: a timer in the worker's own event loop that wakes forgotten partitions.

A wake-up can get lost with its message, its sender or its Redis. So once a second one worker looks
at all partitions, and wakes those that have due work, no lease and an open gate.

A round waits for Redis and its disk some dozen times. The event loop that hands messages to
processes would stand still meanwhile, so it begins each round in a thread, which ends with its
round. There is no thread or process that has to live on for delivery to go on.

An event loop or a round that hangs can't end itself: after two minutes without a sweep a watchdog
ends the process, and the log has where it stood. Whoever supervises the worker starts it again.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from celery import bootsteps
from celery.exceptions import WorkerShutdown
from celery.worker import state as worker_state

from segrelay.jsonnet.files import UsedFiles
from segrelay.worker.adapters.redis.partition import boottime_seconds
from segrelay.worker.adapters.redis.survey import (
    RedisLapsing,
    RedisPresence,
    RedisProgress,
    RedisSchedule,
    RedisSurvey,
)
from segrelay.worker.contract.celery import QUEUES
from segrelay.worker.contract.own_processes import switch_threads_often
from segrelay.worker.contract.redis.claim import InstanceWatch
from segrelay.worker.contract.redis.connection import (
    connect,
    resolve_broker_url,
    resolve_url,
)
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.http import TemplateChoice
from segrelay.worker.contract.words import LIVE
from segrelay.worker.core.rounds import Rounds, Sight, WakeUp
from segrelay.worker.errors import RedisUnavailable
from segrelay.worker.node.shared import Board, Call, NodeMemory, NodeWaker

EVERY_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 30.0
"""The seconds of waking in vain, with an idle process, after which a node counts as broken."""
ALIVE_VARIABLE: Final = "SEGRELAY_ALIVE_FILE"
"""Names a file that the worker touches every three seconds while it sweeps and Redis answers."""
_TIMEOUT_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 2.0
"""Seconds to wait after Redis did not answer, as each try holds up the event loop."""
EXIT_CODE: Final = 1
HUNG_SECONDS: Final = 120.0
"""The seconds without a sweep after which the event loop, or a round of it, counts as hung."""
LEAVE_SECONDS: Final = 5.0
"""The seconds for which the end of a worker waits for a round that is under way."""
SUPERVISOR_VARIABLE: Final = "NOTIFY_SOCKET"
"""Names the socket of systemd that is told that the worker is ready, and that it sweeps."""
END_SECONDS: Final = 10
"""Seconds after which the kernel ends a broken node that did not end by itself."""
LOG: Final = structlog.get_logger()


@dataclass(slots=True)
class Sweep:
    """Wakes forgotten partitions and background jobs, and notices if no drain begins.

    Args:
        announce: A function that tells Redis that this node runs, unless it was told lately.
        leave: A function that takes the announcements back.
        may_sweep: A function that says whether this node does the round.
        look: A function that returns the partitions that have work, and notes those that are due as
            woken.
        queued: A function that returns how many messages wait in the broker.
        wake: A function that sends messages for drains and background jobs.
        has_idle_process: A function that says whether this node has one now.
        chores: The functions that do the other work of a round.
    """

    announce: Callable[[], object]
    leave: Callable[[], object]
    may_sweep: Callable[[], bool]
    look: Callable[[], list[Sight]]
    queued: Callable[[], int]
    wake: Callable[[Sequence[Call]], Any]
    has_idle_process: Callable[[], bool]
    board: Board
    chores: Sequence[Callable[[], object]] = ()
    silence_seconds: float = SILENCE_SECONDS
    clock: Callable[[], float] = boottime_seconds
    rounds: Rounds = field(default_factory=Rounds)
    _idle_since: float | None = None
    _quiet_until: float = 0.0
    _reachable: bool = True

    def tick(self) -> bool:
        """Do one round if it is our turn; returns whether this node is broken and should end."""
        now = self.clock()
        self._idle_since = (self._idle_since or now) if self.has_idle_process() else None
        if now < self._quiet_until:
            return False
        try:
            self.announce()
            if self.may_sweep():
                sights, queued = self.look(), self.queued()
                self.wake(self.rounds.wake_for(sights, queued=queued, now_seconds=now))
                for chore in self.chores:
                    chore()
        except RedisUnavailable as error:
            if self._reachable:
                LOG.warning("sweep.waits", reason=error.message)
            self._reachable, self.rounds = False, Rounds()
            self._quiet_until = self.clock() + _QUIET_SECONDS
            return False
        if not self._reachable:
            LOG.info("sweep.resumed")
        self._reachable = True
        return self._is_broken(now)

    def end(self) -> None:
        """Take the announcement of this node back; if Redis is away, it forgets the node itself."""
        with suppress(RedisUnavailable):
            self.leave()

    def _is_broken(self, now: float) -> bool:
        """Say whether no drain begins though this node wakes and has an idle process."""
        idle_seconds = now - self._idle_since if self._idle_since is not None else 0.0
        since_drain_seconds = now - self.board.began_at_seconds
        shortest = min(self.rounds.silent_for_seconds(now), idle_seconds, since_drain_seconds)
        return shortest >= self.silence_seconds


_ROUND: Final = threading.RLock()
"""Held by a round in its thread. A process is forked between two rounds: it would inherit the locks
that the thread holds at that moment, and nobody who gives them back."""
os.register_at_fork(
    before=_ROUND.acquire, after_in_parent=_ROUND.release, after_in_child=_ROUND.release
)


def begin_aside(work: Callable[[], bool]) -> Future[bool]:
    """Do some work in a thread of its own, and return the future of its result."""
    ended: Future[bool] = Future()

    def run() -> None:
        with _ROUND:
            try:
                ended.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised by whoever asks for the result
                ended.set_exception(error)

    threading.Thread(target=run, name="sweep", daemon=True).start()
    return ended


class SweepStep(bootsteps.StartStopStep):
    """Runs the sweep while the worker is connected to its broker; a step of Celery's consumer."""

    name = "Sweep"
    requires = ("celery.worker.consumer.tasks:Tasks",)
    conditional = False
    hung_seconds = HUNG_SECONDS

    def __init__(self, consumer: Any, **options: Any) -> None:
        self._timer: Any = None
        self._sweep: Sweep | None = None
        self._round: Future[bool] | None = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        """Begin to sweep; also after each reconnection to the broker."""
        if self._sweep is None:
            self._sweep = consumer.app.segrelay.sweep(consumer.pool)
        tell_supervisor("READY=1")
        switch_threads_often()
        watch_for_hanging(self.hung_seconds)
        self._timer = consumer.timer.call_repeatedly(EVERY_SECONDS, self._tick)

    def stop(self, consumer: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stop sweeping; a worker that waits for its broker does not hang."""
        faulthandler.cancel_dump_traceback_later()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shutdown(self, consumer: Any) -> None:
        """Stop sweeping; Celery calls it at the end of the worker."""
        self.stop(consumer)
        if self._round is not None:
            # Else it could announce this node once more, after the announcement was taken back.
            wait((self._round,), LEAVE_SECONDS)
        if self._sweep is not None:
            self._sweep.end()

    def _tick(self) -> None:
        """Begin a round unless one runs, and end the worker if the last one found it broken."""
        if self._round is not None and not self._round.done():
            return  # The watchdog waits for it as it waits for the event loop.
        assert self._sweep is not None
        before, self._round = self._round, begin_aside(self._sweep.tick)
        tell_supervisor("WATCHDOG=1")
        watch_for_hanging(self.hung_seconds)
        if before is not None and before.result():
            LOG.error(
                "worker.broken",
                message="Nobody takes a lease though this worker wakes and has an idle process: "
                "it ends, to be started again.",
            )
            signal.alarm(END_SECONDS)
            raise WorkerShutdown(EXIT_CODE)


def watch_for_hanging(seconds: float) -> None:
    """End this process, with a trace in the log, unless this is called again in time.

    The kernel's clock decides, and a thread without the interpreter's lock acts.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)


def tell_supervisor(state: str) -> None:
    """Tell systemd how this worker is, where systemd runs it."""
    address = os.environ.get(SUPERVISOR_VARIABLE, "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(state.encode(), address.replace("@", "\0", 1))


def sweep_of(settings: Settings, node: NodeMemory, waker: NodeWaker, pool: Any) -> Sweep:
    """Return the sweep of a node."""
    client = connect(resolve_url(settings.redis), timeout_seconds=_TIMEOUT_SECONDS)
    broker = connect(resolve_broker_url(settings.redis), timeout_seconds=_TIMEOUT_SECONDS)
    survey = RedisSurvey(client, settings, stopped=node.templates.stopped_for_waking)
    schedule = RedisSchedule(client, settings)
    envelopes = [settings.http_of(trigger).envelope for trigger in settings.triggers.values()]
    templates = {settings.template_of(trigger) for trigger in settings.triggers.values()}
    templates |= {one.template for one in envelopes if isinstance(one, TemplateChoice)}
    presence = RedisPresence(
        client,
        settings.fingerprint,
        clock=boottime_seconds,
        about=node.about,
        files=UsedFiles(settings.templates_folder, templates).digests,
        # A drain looks at its templates before anything else, so a change of theirs is taken
        # over, or refused, though nothing waits.
        files_changed=lambda: waker.wake([WakeUp(LIVE, n, 0) for n in settings.destinations]),
        alive_file=Path(alive) if (alive := os.environ.get(ALIVE_VARIABLE)) else None,
        watch=InstanceWatch(client, settings, node.known_instances).look,
    )
    return Sweep(
        announce=presence.announce,
        leave=presence.leave,
        may_sweep=survey.may_sweep,
        look=survey.look,
        queued=lambda: sum(int(broker.llen(queue)) for queue in QUEUES),
        wake=waker.wake,
        has_idle_process=lambda: len(worker_state.active_requests) < pool.num_processes,
        board=node.board,
        chores=(
            RedisProgress(client, settings, node.templates.stopped).note,
            lambda: waker.wake(schedule.due()),
            RedisLapsing(client, settings).step,
        ),
    )

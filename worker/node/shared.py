"""The state that all processes of a node share since before the fork: permits, board, calls.

They stand in files without a name: memory that forked processes share, with locks that the kernel
gives back however their holder dies.

**Permits** say how many drains of one kind a node runs at once; one is a locked byte of such a
file. One process always stays free for other destinations: of any one, a drain less runs than there
are processes. Of the backfill lane two less again, but two at least, so that live work finds a
permit of its destination free; and while live calls come, a third one less, so that a live call
does not wait for those before it, and fewer drains of a backfill compete for the processors. A node
does one background job at a time, with a permit of the backfill lane.

**The board** has the time of a warm shutdown, which the parent writes; every drain of the node sees
it, also one that begins later. SIGTERM may reach a child directly, e.g. where a supervisor ends a
whole process group. A drain has its own answer to it, set while it runs: Celery's pool would end
the process at once, in the middle of a request, and replaces what was set before the first task.

**Calls** for drains and background jobs that found no free permit wait in the order in which they
came. Whoever gives a permit back first sends the next of them to Celery again, and only then wakes
its own partition or job: else one busy partition would keep all others waiting. Failing to send is
no error; the connection is one of its own, with short timeouts, as nobody should wait for a wake-up
for long.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

import orjson
import structlog

from segrelay.worker.adapters.redis.partition import boottime_seconds
from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract.celery import (
    SEND_SECONDS,
    BackgroundJob,
    Message,
    background_job_message,
    count_refused,
    drain_message,
    send_messages,
)
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.claim import KnownInstances
from segrelay.worker.contract.redis.client import Redis, RedisError
from segrelay.worker.contract.redis.connection import connect, resolve_broker_url
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import BACKFILL, LIVE
from segrelay.worker.core.rounds import WakeUp
from segrelay.worker.errors import RedisUnavailable

LOG: Final = structlog.get_logger()


_FLOAT_BYTES: Final = 8
_RECENT_SECONDS: Final = 1.0


class Board:
    """The order to stop and the begin of the last drain, which all processes of a node see at once.

    It is made before they are forked.
    """

    def __init__(self) -> None:
        self._told_began = memoryview(mmap.mmap(-1, 2 * _FLOAT_BYTES)).cast("d")

    @property
    def told_at_seconds(self) -> float:
        """Return the time at which the node was told to stop; 0 = it was not."""
        return float(self._told_began[0])

    @property
    def began_at_seconds(self) -> float:
        """Return the time at which the last drain began; 0 = none has."""
        return float(self._told_began[1])

    def tell_to_stop(self) -> None:
        """Tell all drains of the node to stop; the first time counts."""
        if not self.told_at_seconds:
            self._told_began[0] = boottime_seconds()

    def begin(self) -> None:
        """Record the time at which a drain begins."""
        self._told_began[1] = boottime_seconds()


class BoardStop(Stop):
    """The order to stop a drain, from the node's board or from a signal to this process."""

    __slots__ = ("_board", "_told_at_seconds")

    def __init__(self, board: Board) -> None:
        self._board = board
        super().__init__()

    @property
    def told_at_seconds(self) -> float:
        """Return the time at which the signal came; 0 = it has not come."""
        return self._told_at_seconds or self._board.told_at_seconds

    @told_at_seconds.setter
    def told_at_seconds(self, seconds: float) -> None:
        self._told_at_seconds = seconds


@contextmanager
def listening(board: Board) -> Iterator[BoardStop]:
    """Yield the signal to stop for a drain; meanwhile SIGTERM counts as one."""
    stop = BoardStop(board)

    def tell(*_: object) -> None:
        stop.told_at_seconds = boottime_seconds()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _unnamed_file() -> int:
    """Return the descriptor of a new file, which is gone with the last process that has it open."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class SharedDocument:
    """A JSON object that all processes of a node read and write, in a file without a name.

    It is made before they are forked, and empty again if a process is killed while it writes.
    """

    def __init__(self) -> None:
        self.descriptor = _unnamed_file()

    def read(self) -> dict[str, Any]:
        with self.changing() as stored:
            return stored

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """Yield the object, and write what it was changed to."""
        # The kernel unlocks the file if the holder dies. Locks do not nest: the inner one would end
        # the outer one.
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            before = os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)
            stored: dict[str, Any] = {}
            with suppress(ValueError):  # it is new, or its writer was killed
                stored = dict(orjson.loads(before))
            yield stored
            if (changed := orjson.dumps(stored)) != before:
                os.ftruncate(self.descriptor, 0)
                os.pwrite(self.descriptor, changed, 0)
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)


_OF_A_KIND: Final = 65_536
"""The bytes for each kind of permit: more than a node can have processes."""
_OF_BACKFILL: Final = 0


class Permits:
    """The permits of one node; made before its processes are forked. A process holds one at most.

    A permit is given back when its `with` block, or its process, ends.

    Args:
        destinations: The names of the destinations, the same in all processes.
    """

    def __init__(self, processes: int, destinations: Iterable[str]) -> None:
        self._most = max(1, processes - 1)
        self._most_of_backfill = max(min(2, self._most), self._most - 2)
        self._kinds = {name: number for number, name in enumerate(destinations, start=1)}
        self._job = (len(self._kinds) + 2, 1)
        self._descriptor = _unnamed_file()
        self._live_at = memoryview(mmap.mmap(-1, _FLOAT_BYTES)).cast("d")

    def live_is_recent(self) -> bool:
        """Say whether any live call came within the last second."""
        return bool(boottime_seconds() - self._live_at[0] < _RECENT_SECONDS)

    def take(self, call: WakeUp) -> ExitStack | None:
        """Take the permits that a drain needs; None where one of them is not free."""
        kinds = [(self._kinds.get(call.destination, len(self._kinds) + 1), self._most)]
        if call.queue == BACKFILL:
            most = self._most_of_backfill
            kinds.append((_OF_BACKFILL, max(min(2, most), most - self.live_is_recent())))
        else:
            self._live_at[0] = boottime_seconds()
        return self._take(kinds)

    def take_for_background_job(self) -> ExitStack | None:
        """Take the node's one permit for background jobs, and one of the backfill lane's."""
        return self._take([self._job, (_OF_BACKFILL, self._most_of_backfill)])

    def _take(self, kinds: Iterable[tuple[int, int]]) -> ExitStack | None:
        """Take a permit of each kind, or return None if all of one kind are taken."""
        permit = ExitStack()
        for kind, most in kinds:
            first = kind * _OF_A_KIND
            offset = next(filter(self._locks, range(first, first + most)), None)
            if offset is None:
                permit.close()
                return None
            permit.callback(fcntl.lockf, self._descriptor, fcntl.LOCK_UN, 1, offset)
        return permit

    def background_job_runs(self) -> bool:
        """Say whether another process of the node does a background job."""
        permit = self._take([self._job])
        if permit:
            permit.close()
        return permit is None

    def are_free(self) -> bool:
        """Say whether no process of the node drains; not to be asked by one that does."""
        for kind in range(1, len(self._kinds) + 2):
            for offset in range(kind * _OF_A_KIND, kind * _OF_A_KIND + self._most):
                if not self._locks(offset):
                    return False
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, offset)
        return True

    def _locks(self, offset: int) -> bool:
        """Lock a byte if it is free, and say whether it was."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError:
            return False
        return True


Call = WakeUp | BackgroundJob
_MOST: Final = 10_000
"""The largest number of calls that are kept; for a lost one, the sweep sends another."""


class WaitingCalls(SharedDocument):
    """The list of waiting calls that all processes of a node share.

    A drain has three fields there, and a background job two.
    """

    def add(self, call: Call) -> None:
        """Put a call at the end, if it does not wait already."""
        with self.changing() as stored:
            calls = stored.setdefault("calls", [])
            if [*call] not in calls and len(calls) < _MOST:
                calls.append([*call])

    def next_after(
        self, freed: WakeUp, *, job_runs: Callable[[], bool] = lambda: False
    ) -> Call | None:
        """Take the first call that can use the permits of the ended drain; live calls first.

        Args:
            freed: The drain that has ended; after a background job, one of the backfill lane at no
                destination.
            job_runs: A function that says whether the node is doing a background job.
        """

        def fits(call: Sequence[Any]) -> bool:
            if call[0] == freed.queue == BACKFILL or call[1] == freed.destination:
                return True
            is_job = len(call) == len(BackgroundJob._fields)
            return is_job and freed.queue == BACKFILL and not job_runs()

        return self._take(fits)

    def next_live(self, destination: str) -> WakeUp | None:
        """Take the first live call for a destination."""
        found = self._take(lambda call: call[:2] == [LIVE, destination])
        return cast("WakeUp | None", found)

    def holds_live(self) -> bool:
        """Say whether a live call waits."""
        return any(call[0] == LIVE for call in self.read().get("calls", ()))

    def _take(self, fits: Callable[[Sequence[Any]], bool]) -> Call | None:
        with self.changing() as stored:
            calls = stored.setdefault("calls", [])
            found = min(filter(fits, calls), key=lambda call: call[0] != LIVE, default=None)
            if not found:
                return None
            calls.remove(found)
            return WakeUp(*found) if len(found) == len(WakeUp._fields) else BackgroundJob(*found)


_LOOKS: Final = 5
"""The number of looks of the sweep after which it wakes stopped triggers once, too."""
_REASON_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class TemplateUse:
    """A process' report of the templates that it works with.

    Args:
        versions: The versions of the templates, by trigger.
        refused: Why a changed template is not used, by trigger.
        stopped: Why it can't work on a trigger, by trigger.
        doubted: The number of events whose compiled result differed from the engine's, by template.
        looked_at: The time when it last compared its templates with the files, by CLOCK_MONOTONIC,
            which all processes of a machine share.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    stopped: Mapping[str, str] = field(default_factory=dict)
    doubted: Mapping[str, int] = field(default_factory=dict)
    looked_at: float = 0.0


class TemplateReports(SharedDocument):
    """The reports of the processes of this node about the templates that they work with.

    The first comes before they are forked: the sweep must not wake triggers that are stopped.
    """

    _looks = 0

    def report(self, pid: int, use: TemplateUse) -> None:
        """Record the templates that a process works with, and forget processes that have ended."""
        with self.changing() as stored:
            for ended in [other for other in stored if not _runs(int(other))]:
                del stored[ended]
            stopped = {name: why[:_REASON_CHARACTERS] for name, why in sorted(use.stopped.items())}
            stored[str(pid)] = {**asdict(use), "stopped": stopped}

    def in_use(self) -> dict[str, Any]:
        """Return the templates that the running processes work with, as fields of `Process`.

        Which triggers are stopped, and which changes refused, the process says that has looked
        last: an idle one does not know yet that a template was mended.
        """
        running = [own for pid, own in sorted(self.read().items()) if _runs(int(pid))]
        newest: Mapping[str, Any] = max(running, key=lambda own: own["looked_at"], default={})
        versions: dict[str, set[str]] = {}
        doubted = Counter[str]()
        for each in running:
            doubted |= Counter(each["doubted"])  # of several processes the largest number counts
            for trigger, version in each["versions"].items():
                versions.setdefault(trigger, set()).add(version)
        return {
            **{name: newest.get(name, {}) for name in ("stopped", "refused")},
            "versions": {trigger: sorted(each) for trigger, each in sorted(versions.items())},
            "doubted": dict(doubted),
        }

    def stopped(self) -> Mapping[str, str]:
        """Return the triggers that this node can't work on, and why."""
        found: Mapping[str, str] = self.in_use()["stopped"]
        return found

    def stopped_for_waking(self) -> Mapping[str, str]:
        """Return the stopped triggers, or now and then none, to find out whether one was mended."""
        self._looks += 1
        return {} if self._looks % _LOOKS == 0 else self.stopped()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


class NodeMemory:
    """The state that the processes of one node share; it is made before any of them is forked.

    Args:
        processes: The number of the node's processes.
        destinations: The names of the destinations.
    """

    def __init__(self, processes: int, destinations: Iterable[str]) -> None:
        self.permits = Permits(processes, destinations)
        self.waiting, self.board = WaitingCalls(), Board()
        self.templates = TemplateReports()
        self.known_instances: KnownInstances = {}
        self._processes, self._begun = processes, SharedDocument()

    def count_process(self) -> None:
        """Count a process that begins: each beyond the first ones replaces one that was killed."""
        with self._begun.changing() as stored:
            stored["begun"] = begun = stored.get("begun", 0) + 1
            stored |= {"killed": begun - self._processes, "killed_ms": round(time.time() * 1_000)}

    def about(self) -> dict[str, Any]:
        """Return the fields of `Process` that describe this node: templates, messages, processes.

        Of its processes it tells how many were replaced, and when the last.
        """
        stored = self._begun.read()
        names = ("killed", "killed_ms") if stored.get("killed", 0) > 0 else ()
        killed = {name: stored[name] for name in names}
        return {**self.templates.in_use(), "refused_messages": count_refused(), **killed}


class NodeWaker:
    """Sends messages for drains and background jobs; a process that was forked connects anew."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Redis | None = None
        self._pid = 0

    def wake(self, calls: Iterable[Call]) -> None:
        """Send messages for drains and background jobs, all of them in one round trip."""
        messages = list(map(self._message, calls))
        if not messages:
            return
        try:
            send_messages(self._connected(), messages)
        except (RedisUnavailable, RedisError) as error:
            LOG.debug("wakeup.failed", error=type(error).__name__)

    def _message(self, call: Call) -> Message:
        if isinstance(call, BackgroundJob):
            return background_job_message(call)
        return drain_message(PartitionKeys(call.destination, call.partition), call.queue)

    def _connected(self) -> Redis:
        if self._client is None or self._pid != os.getpid():
            url = resolve_broker_url(self._settings.redis)
            self._client = connect(url, timeout_seconds=SEND_SECONDS)
            self._pid = os.getpid()
        return self._client

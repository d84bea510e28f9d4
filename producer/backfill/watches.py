"""The watches in Redis: the state and the lock of each, and the versions of files it has taken.

A version is taken by one script, which also keeps the job that is to come of it. So a watch that is
killed in between begins that job later, and no version twice. The newest versions are kept, and up
to the time of change of those that are not, every file counts as taken: whatever is forgotten is
not taken again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.producer.events.values import format_time
from segrelay.producer.sources.remote import Found
from segrelay.producer.steps import LOCK_MS, StepStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import load_script, run_script, script_call

MOST_TAKEN: Final = 20_000
"""The number of versions that a watch keeps; each takes about 200 bytes."""
_ASKED_AT_ONCE: Final = 1_000
_NEVER_MS: Final = 1 << 53
_NO_FLOOR_MS: Final = -1
"""Below the time of a file of which nothing tells the time of change: that is 0."""
_SECOND_NS: Final = 1_000_000_000
_TAKE: Final = load_script("watch_take", Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class Version:
    """A file in one state.

    Args:
        file: The path or address by which a job names the file.
        print: The digest of its identity; another one if it is replaced or written to.
        changed_ms: The time of its last change.
    """

    file: str
    print: str
    changed_ms: int

    @classmethod
    def of(cls, file: str, found: Found) -> Version:
        """Return the version of a file.

        Buckets tell the same time in a list to the millisecond, and of one object to the second.
        """
        changed_ns = found.changed_ns
        if found.version:
            changed_ns -= changed_ns % _SECOND_NS
        text = f"{found.version}|{found.size}|{changed_ns}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cls(file, digest, changed_ns // 1_000_000)

    @property
    def name(self) -> str:
        """Return the text that tells it from all others."""
        return f"{self.print}|{self.file}"


@dataclass(slots=True)
class WatchState:
    """The progress of a watch.

    Args:
        source: The place at which it looked first.
        since_ms: The time of the first look; 0 = there was none yet.
        existing: The number of files that were there then, and were left alone.
        taken: Files that it has taken since.
        job: The job that is read; "" = none is.
        spec: Its specification, until it is known to exist; "" = it does.
        file: The file of the last job.
        phase: The phase of the last job; "" = there was none.
        starts: The number of readers started since one has last read a block.
        position: The number of the last block that was read by then.
        start_at_ms: The time before which none is started again.
        steady: For each new file in a folder, its print and since when it is that (ms).
        refused: For each file of which no job could be made, its print, and why.
        waiting: New files at the last look that are not taken yet.
        looked_ms: The time of the last look.
        next_ms: When the next step is due.
        failures: Steps in a row that came to nothing.
        failing_since_ms: The time of the first of them.
        problem: The problem that stopped the last of them.
    """

    source: str = ""
    since_ms: int = 0
    existing: int = 0
    taken: int = 0
    job: str = ""
    spec: str = ""
    file: str = ""
    phase: str = ""
    starts: int = 0
    position: int = 0
    start_at_ms: int = 0
    steady: dict[str, tuple[str, int]] = field(default_factory=dict)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    waiting: int = 0
    looked_ms: int = 0
    next_ms: int = 0
    failures: int = 0
    failing_since_ms: int = 0
    problem: str = ""

    def line(self) -> str:
        """Return how the watch stands, in a few words."""
        if not self.since_ms:
            return self.problem or "has not looked yet"
        parts = [f"{plural(self.taken, 'file')} taken"]
        parts += [f"{self.waiting:,} to be taken"] if self.waiting else []
        parts += [f"{self.existing:,} left alone at the first look"] if self.existing else []
        parts += [f"job {self.job} is {self.phase}"] if self.job else []
        return ", ".join(parts)

    def document(self) -> dict[str, Any]:
        """Return how the watch stands, for machines."""
        return {
            "since": _shown(self.since_ms),
            "existing": self.existing,
            "taken": self.taken,
            "job": self.job or None,
            "phase": self.phase or None,
            "file": self.file or None,
            "waiting": self.waiting,
            "refused": {file: why for file, (_, why) in self.refused.items()},
            "last_look": _shown(self.looked_ms),
            "next_step": _shown(self.next_ms),
            "failures": self.failures,
            "problem": self.problem or None,
        }

    def dumps(self) -> bytes:
        """Return the text that Redis keeps."""
        return orjson.dumps(asdict(self))

    @classmethod
    def loads(cls, text: bytes) -> WatchState:
        """Read the state that `dumps` wrote; b"" = it has never looked."""
        state = cls(**orjson.loads(text or b"{}"))
        state.steady = {name: (one[0], one[1]) for name, one in state.steady.items()}
        state.refused = {name: (one[0], one[1]) for name, one in state.refused.items()}
        return state


def _shown(at_ms: int) -> str | None:
    return format_time(1_000 * at_ms) if at_ms else None


class WatchStore:
    """One watch in Redis.

    Args:
        name: The NAME of its table `[backfill.watch.NAME]`.
        most_taken: The number of versions that it keeps.
    """

    def __init__(self, client: Redis, name: str, most_taken: int = MOST_TAKEN) -> None:
        self._client = client
        self.name = name
        self._most_taken = most_taken
        self._steps = StepStore(client, keys.watch(name), f"watch '{name}'")

    def take(self) -> tuple[WatchState, int] | None:
        """Take the lock; returns the state and Redis' clock (ms), None if a step is under way."""
        taken = self._steps.take()
        return (WatchState.loads(taken[0]), taken[1]) if taken else None

    def save(self, state: WatchState, *, ends: bool = False) -> None:
        """Write the state; extend the lock, or give it back if the step ends.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        self._steps.save(state.dumps(), next_ms=state.next_ms, ends=ends)

    def peek(self) -> WatchState:
        """Return the state as it is now."""
        return WatchState.loads(self._steps.peek())

    def begin(self, state: WatchState, existing: Sequence[Version]) -> None:
        """Keep the state after the first look, in which these files were left alone.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        oldest_first = sorted(existing, key=lambda one: one.changed_ms)
        left, kept = oldest_first[: -self._most_taken], oldest_first[-self._most_taken :]
        self._keep(state, kept, floor_ms=left[-1].changed_ms if left else _NO_FLOOR_MS)

    def begin_job(self, state: WatchState, version: Version, waiting: Iterable[Version]) -> bool:
        """Take a version, together with the state that has its job; say whether it was new.

        Args:
            state: The state, with the job.
            version: The version that the job reads.
            waiting: All versions that are still to be taken.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        oldest_ms = min((one.changed_ms for one in waiting), default=_NEVER_MS)
        return self._keep(state, [version], waiting_ms=oldest_ms, is_new=True)

    def _keep(
        self,
        state: WatchState,
        versions: Sequence[Version],
        *,
        floor_ms: int = _NO_FLOOR_MS,
        waiting_ms: int = _NEVER_MS,
        is_new: bool = False,
    ) -> bool:
        call = script_call(
            _TAKE,
            watch=keys.watch(self.name),
            taken=keys.watch_taken(self.name),
            epoch=self._steps.epoch,
            lasting_ms=LOCK_MS,
            state=state.dumps(),
            most=self._most_taken,
            floor_ms=floor_ms,
            waiting_ms=waiting_ms,
            is_new=int(is_new),
            versions={
                "name": [one.name for one in versions],
                "changed_ms": [one.changed_ms for one in versions],
            },
        )
        answer: Any = run_script(self._client, _TAKE, call.keys, call.args)
        if not answer:
            raise self._steps.lost()
        return int(answer) > 0

    def find_new(self, listing: Mapping[str, Found], state: WatchState) -> list[Version]:
        """Return the versions of a listing that were not taken, in its order."""
        floor: Any = self._client.hget(keys.watch(self.name), "floor")
        floor_ms = int(floor or _NO_FLOOR_MS)
        versions = [Version.of(file, found) for file, found in listing.items()]
        possible = [
            one
            for one in versions
            if one.changed_ms > floor_ms or state.refused.get(one.file, ("",))[0] == one.print
        ]
        known = self._known(possible)
        return [one for one, is_known in zip(possible, known, strict=True) if not is_known]

    def _known(self, versions: Sequence[Version]) -> list[bool]:
        pipe = self._client.pipeline(transaction=False)
        for begin in range(0, len(versions), _ASKED_AT_ONCE):
            some = [one.name for one in versions[begin : begin + _ASKED_AT_ONCE]]
            pipe.execute_command("ZMSCORE", keys.watch_taken(self.name), *some)
        answers: list[list[Any]] = pipe.execute() if versions else []
        return [score is not None for scores in answers for score in scores]

    def now_ms(self) -> int:
        """Return the time by Redis' clock, in ms since 1970."""
        return self._steps.now_ms()

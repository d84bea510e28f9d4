"""The data behind the pages: one standing for all who look, and stores with a limit.

However many pages are open, the standing is read once a second, and an hour of samples once in ten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import orjson

from segrelay.ops.dead_letters.reading import Cause, count_causes
from segrelay.ops.dead_letters.replay import DeadLetters
from segrelay.ops.kept import Filter
from segrelay.ops.quarantine import QuarantinedRecords
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.status.health import problems_of
from segrelay.ops.status.problems import HealthProblem
from segrelay.ops.status.standing import Standing, WatchedFile, read_newest
from segrelay.worker.contract import keys
from segrelay.worker.contract.processes import KEPT, Sample
from segrelay.worker.contract.redis.claim import compare
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings

MOST_SCANNED: Final = 2_000
"""The most letters, records or entries that are read for one page."""
_FRESH_SECONDS: Final = 1.0
_HOUR_FRESH_SECONDS: Final = 10.0
_SAMPLES_APART: Final = 6
"""Samples are ten seconds apart; one a minute is enough for a plot, and has 30 KB at most."""

Found = TypeVar("Found")


@dataclass(slots=True)
class Shared(Generic[Found]):
    """A value that is read at most every so often, by one thread, for everybody who asks."""

    read: Callable[[], Found]
    fresh_seconds: float
    _found: Found | None = None
    _until: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def value(self) -> Found:
        """Return the value, read anew if it is old.

        Raises:
            RedisUnavailable: It can't be read.
        """
        with self._lock:
            if self._found is None or time.monotonic() >= self._until:
                self._found = self.read()
                self._until = time.monotonic() + self.fresh_seconds
            return self._found


@dataclass(frozen=True, slots=True)
class Judged:
    """A standing and its problems."""

    standing: Standing
    problems: Sequence[HealthProblem]


@dataclass(frozen=True, slots=True)
class Scan(Generic[Found]):
    """Things that were found by a scan with a limit.

    Args:
        is_whole: True if nothing is left beyond the limit.
    """

    found: Sequence[Found]
    is_whole: bool

    @property
    def count(self) -> str:
        """Return how many there are, in words."""
        return f"{len(self.found):,}" if self.is_whole else f"more than {len(self.found):,}"


def scan(things: Iterable[Found], most: int = MOST_SCANNED) -> Scan[Found]:
    """Return the first things, and whether these are all."""
    found = list(islice(things, most + 1))
    return Scan(found[:most], len(found) <= most)


class Look:
    """The Redis of a console.

    Args:
        client: With short timeouts: a page waits for it.
        settings: The configuration, until workers or receivers are started with a newer one.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.client = client
        self._file = WatchedFile(settings)
        self._judged = Shared(self._judge, _FRESH_SECONDS)
        self._hour = Shared(self._read_hour, _HOUR_FRESH_SECONDS)
        self._causes = Shared(self._count_causes, _FRESH_SECONDS)
        self._is_compared = False

    @property
    def settings(self) -> Settings:
        """Return the configuration that is in use."""
        return self._file.settings

    def judged(self) -> Judged:
        """Return the standing and its problems, at most a second old."""
        return self._judged.value()

    def standing(self) -> Standing:
        """Return the standing, at most a second old."""
        return self.judged().standing

    def hour(self) -> Sequence[Sample]:
        """Return a sample for each minute of the last hour, the oldest first."""
        return self._hour.value()

    def causes(self) -> Sequence[Cause]:
        """Return the causes of all dead letters, the most frequent first."""
        return self._causes.value()

    def dead_letters(self) -> DeadLetters:
        """Return the dead letters."""
        return DeadLetters(self.client, self.settings)

    def quarantine(self) -> QuarantinedRecords:
        """Return the quarantined records."""
        return QuarantinedRecords(self.client, self.settings)

    def count_dead_letters(self, wanted: Filter) -> Scan[str]:
        """Return the ids of the letters that match, as far as a page may read."""
        return scan(one["id"] for one in self.dead_letters().find(wanted))

    def _judge(self) -> Judged:
        if not self._is_compared:
            compare(self.client, self.settings)
            self._is_compared = True
        standing = read_newest(self.client, self._file)
        return Judged(standing, problems_of(standing))

    def _count_causes(self) -> list[Cause]:
        return count_causes(self.client, all_partitions(self.client, self.settings))

    def _read_hour(self) -> list[Sample]:
        pipe = self.client.pipeline(transaction=False)
        for position in range(0, KEPT, _SAMPLES_APART):
            pipe.lindex(keys.PROGRESS, position)
        texts: list[Any] = pipe.execute()
        return [Sample(**orjson.loads(text)) for text in reversed(texts) if text]

"""The data behind the pages: one standing for all who look, and stores with a limit.

However many pages are open, the standing is read once in a while: see `Shared`. What a page reads
besides is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from segrelay.ops.dead_letters.reading import Cause, count_causes
from segrelay.ops.kept import QuarantinedRecords
from segrelay.ops.outcomes import newest_rows
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.waiting import EVERYTHING
from segrelay.ops.status.health import problems_of
from segrelay.ops.status.problems import HealthProblem
from segrelay.ops.status.standing import Shared, Standing, WatchedFile, read_newest
from segrelay.worker.contract import keys
from segrelay.worker.contract.outcomes import OutcomeRow
from segrelay.worker.contract.processes import KEPT, KEPT_OF_WEEK, Sample, read_requests
from segrelay.worker.contract.records import read_records
from segrelay.worker.contract.redis.claim import compare
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings

MOST_SCANNED: Final = 2_000
"""The most things that are counted before an act, and members that are looked through."""
MOST_READ: Final = 1_000
"""The most dead letters, waiting deliveries or quarantined payloads that one page reads."""
_MOST_ROWS: Final = 2_000
"""The most of the newest rows of the outcome log that are known here."""
_MOST_RECORDS: Final = 20_000
"""The most records of the quarantine that are known here, without their payloads."""
_FRESH_SECONDS: Final = 1.0
_LATELY_FRESH_SECONDS: Final = 10.0
LINES_FRESH_SECONDS: Final = 4
"""The seconds between two refreshes of a page that shows the newest lines."""
SPANS: Final[Mapping[str, tuple[str, int, int]]] = {
    "hour": (keys.PROGRESS, KEPT, 6),
    "day": (keys.WEEK, KEPT_OF_WEEK // 7, 1),
    "week": (keys.WEEK, KEPT_OF_WEEK, 7),
}
"""For each span of time: the list of samples that a plot shows, how many of them, and how far they
are apart. With 400 triggers a sample has 30 KB, and some hundred are enough for a plot."""

Found = TypeVar("Found")


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
    """The data of all pages, read from Redis and shared for some seconds by all who look at them.

    Attributes:
        judged: The standing and its problems.
        samples: The samples of a plot by its span of time, the oldest first.
        causes: The causes of all dead letters, the most frequent first.
        outcomes: The newest rows of the outcome log, the newest first.
        records: The records of the quarantine, in no order.
        requests: The newest requests to the receiver.

    Args:
        client: A client with short timeouts, as a page waits for its answers.
        settings: The configuration, until workers or receivers are started with a newer one.
        changed_at: A function that returns the time at which a command that was started here ended
            last.
    """

    def __init__(
        self, client: Redis, settings: Settings, changed_at: Callable[[], float] = float
    ) -> None:
        self.client = client
        self._file = WatchedFile(settings)
        self.judged = Shared(self._judge, _FRESH_SECONDS, changed_at)
        self.samples = {
            name: Shared(partial(self._read_samples, *span), _LATELY_FRESH_SECONDS)
            for name, span in SPANS.items()
        }
        self.causes = Shared(self._count_causes, _FRESH_SECONDS, changed_at)
        self.outcomes = Shared(self._read_outcomes, LINES_FRESH_SECONDS, changed_at)
        self.records = Shared(
            lambda: scan(QuarantinedRecords(client, self.settings).find(EVERYTHING), _MOST_RECORDS),
            _FRESH_SECONDS,
            changed_at,
        )
        self.requests = Shared(lambda: list(read_requests(client)), _LATELY_FRESH_SECONDS)
        self._is_compared = False

    @property
    def settings(self) -> Settings:
        """Return the configuration that is in use."""
        return self._file.settings

    @property
    def fresh_seconds(self) -> float:
        """Return the time between two readings of the standing."""
        return self.judged.seconds or _FRESH_SECONDS

    def standing(self) -> Standing:
        """Return the standing, as it was read last."""
        return self.judged().standing

    def _judge(self) -> Judged:
        if not self._is_compared:
            compare(self.client, self.settings)
            self._is_compared = True
        standing = read_newest(self.client, self._file)
        return Judged(standing, problems_of(standing))

    def _count_causes(self) -> list[Cause]:
        return count_causes(self.client, all_partitions(self.client, self.settings))

    def _read_outcomes(self) -> list[OutcomeRow]:
        rows = newest_rows(self.client, all_partitions(self.client, self.settings))
        return list(islice(rows, _MOST_ROWS))

    def _read_samples(self, key: str, most: int, apart: int) -> list[Sample]:
        pipe = self.client.pipeline(transaction=False)
        pipe.lindex(keys.PROGRESS, 0)
        count = min(most, self.client.llen(key))
        for number in range(0, count, max(1, count * apart // most)):
            pipe.lindex(key, number)
        texts: list[Any] = pipe.execute()
        return read_records(Sample, filter(None, reversed(texts)), "a sample of progress")

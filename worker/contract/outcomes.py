r"""The outcome log: the end of each delivery as a row, packed in a capped stream of its partition.

The script that moves a count adds the rows, so that counts and rows never differ. `counts` is 1 in
the row of an end, and 0 in that of a failed try. A dead letter that is replayed or discarded takes
its death back: that row is the death once more, with -1. So the sums of `counts` by outcome are the
counts of `segrelay status`, as far back as rows are kept.

An entry of the stream holds the rows of one settlement: `r` is what `pack` returned, `m` a mask
with `1` for each row that counts (absent = all do). The time of an end is that of its entry.

Beside the outcomes, the `counts` of a partition hold measures: times, answers, user objects.

| field | counts |
| --- | --- |
| `answered|200` | requests by status; a word in its place says why there was no answer |
| `carried|users` | user objects of all requests |
| `asked|n`, `asked|ms` | requests by the time until the answer, and the sum of these times |
| `expired|letters` | dead letters that were discarded because they were kept for long enough |
| `took|KIND|since|n`, `took|KIND|since|ms` | deliveries by the time that they took, and the sum |

KIND is `live` or `backfill`. `since` is `occurred` or `accepted`: the event, or its acceptance. `n`
is the index of a bucket; the last one has no upper bound.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple, Self

import orjson

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys, split_stream_name
from segrelay.worker.contract.protection import OUTCOMES, PROTECTION
from segrelay.worker.contract.settings import Settings

_WIDTH: Final = 2 * DIGEST_BYTES
_MESSAGE: Final = 8
"""The position of the message in what rows have in common."""
_NOBODY: Final = "0" * _WIDTH
"""The digest of an entry that can't be read, and of somebody who was erased."""


RETRY: Final = "retry"
"""The outcome of an attempt after which the delivery is tried again; it counts 0."""


class End(NamedTuple):
    """The end of one delivery, or where it counts -1, what takes a death back.

    Attributes:
        stream: The name of its stream, `lane|trigger`.
        outcome: `delivered`, `skipped`, `dead`, `discarded` or `RETRY`.
        reason: The reason for a skipped or a dead delivery; "" = there is none.
        template: The digest of the template that rendered it; "" = none did.
        status: The status of the answer to its last request; 0 = there was none.
        attempts: The number of requests that carried it.
        message: The outcome's message for a person; "" = none.
    """

    header: Header
    stream: str
    outcome: str
    reason: str = ""
    template: str = ""
    status: int = 0
    attempts: int = 0
    message: str = ""
    counts: int = 1


class OutcomeRow(NamedTuple):
    """A row as a warehouse gets it, its columns in this order.

    Attributes:
        id: Unique: `DESTINATION_ID.PARTITION.ENTRY.NUMBER`.
        time_ms: The time of the end, by Redis' clock.
        person: The digest of the profile's key (hex); "" = the entry could not be read, or the
            person was erased.
    """

    id: str
    time_ms: int
    person: str
    audience: str
    direction: str
    event_time_us: int
    destination: str
    trigger: str
    lane: str
    template: str
    outcome: str
    reason: str
    status: int
    attempts: int
    message: str
    counts: int


def log_bytes(settings: Settings) -> int:
    """Return the most bytes of the log of one partition."""
    parts = settings.redis.partitions * max(1, len(settings.destinations))
    return settings.outcomes.max_bytes // parts


def pack(ends: Iterable[End]) -> bytes:
    """Return rows as one text; what many of them have in common stands in it once."""
    kinds: dict[tuple[Any, ...], int] = {}
    of: list[int] = []
    digests: list[bytes] = []
    times: list[int] = []
    for header, stream, outcome, reason, template, status, attempts, message, counts in ends:
        common = (
            header.audience, header.direction.value, stream, template, outcome, reason, status,
            attempts, message, counts,
        )  # fmt: skip
        of.append(kinds.setdefault(common, len(kinds)))
        digests.append(header.digest)
        times.append(header.time_us)
    return _sealed(kinds, of, b"".join(digests).hex(), times)


def _sealed(kinds: Iterable[Any], *more: Any) -> bytes:
    return PROTECTION.seal(orjson.dumps([list(kinds), *more]), OUTCOMES)


def without_people(packed: bytes, people: Collection[str]) -> tuple[bytes, int]:
    """Return rows in which some people are not named, and how many rows were about them.

    Args:
        packed: The text that `pack` has returned.
        people: Their digests (hex).
    """
    kinds, of, digests, *times = orjson.loads(PROTECTION.unseal(packed, OUTCOMES))
    found = [digests[at : at + _WIDTH] for at in range(0, len(digests), _WIDTH)]
    theirs = [at for at, digest in enumerate(found) if digest in people]
    for at in theirs:
        found[at] = _NOBODY
        kind = kinds[of[at]]
        if kind[_MESSAGE]:  # it may quote what is the person's own
            of[at] = len(kinds)
            kinds.append([*kind[:_MESSAGE], "", *kind[_MESSAGE + 1 :]])
    left = sorted(set(of))
    return (
        _sealed((kinds[at] for at in left), [left.index(at) for at in of], "".join(found), *times),
        len(theirs),
    )


def unpack(
    partition: PartitionKeys,
    entry_id: bytes,
    entry: Mapping[bytes, bytes],
    people: Collection[str] | None = None,
) -> Iterator[OutcomeRow]:
    """Yield the rows of an entry, or those about these people (digests, in hex)."""
    kinds, of, digests, times, *_ = orjson.loads(PROTECTION.unseal(entry[b"r"], OUTCOMES))
    if people is not None and not any(digest in digests for digest in people):
        return
    mask = entry.get(b"m", b"")
    shown_id = entry_id.decode()
    time_ms = int(shown_id.partition("-")[0])
    for at, kind in enumerate(of):
        if mask[at : at + 1] == b"0":
            continue
        audience, direction, stream, *about = kinds[kind][: _MESSAGE + 2]
        lane, trigger = split_stream_name(stream)
        person = digests[_WIDTH * at : _WIDTH * (at + 1)]
        if people is not None and person not in people:
            continue
        yield OutcomeRow(
            f"{partition.destination}.{partition.number}.{shown_id}.{at}",
            time_ms,
            "" if person == _NOBODY else person,
            audience,
            direction if times[at] else "",
            times[at],
            partition.destination,
            trigger,
            lane,
            *about,
        )


ANSWERED: Final = "answered"
CARRIED: Final = "carried|users"
ASKED: Final = "asked"
EXPIRED: Final = "expired|letters"
TOOK: Final = "took"
OCCURRED: Final = "occurred"
ACCEPTED: Final = "accepted"
REQUEST_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
"""Upper bounds of the buckets for requests, in seconds; a change makes older counts wrong."""
DELIVERY_BOUNDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 21_600.0)
_MS: Final = "ms"
_KNOWN: Final = frozenset(HTTPStatus)


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of times: how many fell into each bucket, and their sum.

    Args:
        bounds: The upper bounds in seconds of all buckets but the last, which has none.
        buckets: The number of times that fell into each.
        sum_seconds: The sum of all times.
    """

    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    sum_seconds: float

    @classmethod
    def read(cls, counts: Mapping[str, int], prefix: str, bounds: tuple[float, ...]) -> Self:
        """Read the histogram whose fields in `counts` begin with a prefix."""
        buckets = tuple(counts.get(f"{prefix}|{n}", 0) for n in range(len(bounds) + 1))
        return cls(bounds, buckets, counts.get(f"{prefix}|{_MS}", 0) / 1_000)

    def quantile(self, share: float) -> float | None:
        """Return the bound within which this share of all times fell; None without any."""
        wanted = share * sum(self.buckets)
        ends = zip((*self.bounds, self.bounds[-1]), accumulate(self.buckets), strict=True)
        return next((bound for bound, count in ends if count >= wanted > 0), None)

    def cumulative(self) -> dict[str, int]:
        """Return by bound how many times were not longer."""
        names = (*map(str, self.bounds), "+Inf")
        return dict(zip(names, accumulate(self.buckets), strict=True))

    def document(self) -> dict[str, Any]:
        """Return the histogram for JSON, where a bucket also counts the times of lower ones."""
        return {
            "count": sum(self.buckets),
            "sum_seconds": self.sum_seconds,
            "buckets": self.cumulative(),
        }


def fields_of_times(
    prefix: str, bounds: tuple[float, ...], times: Iterable[float]
) -> dict[str, int]:
    """Return the counts that times, in seconds, add to the histogram with this prefix."""
    seconds = sorted(times)
    ends = [*(bisect_right(seconds, bound) for bound in bounds), len(seconds)]
    found = {
        f"{prefix}|{bucket}": end - begin
        for bucket, (begin, end) in enumerate(pairwise([0, *ends]))
        if end > begin
    }
    return found | {f"{prefix}|{_MS}": round(1_000 * sum(one for one in seconds if one > 0))}


def prefix_of_delivery(kind: str, since: str) -> str:
    """Return the prefix of the fields that hold the times of deliveries."""
    return f"{TOOK}|{kind}|{since}"


def label_of_status(status: int) -> str:
    """Return the label under which a status is counted; unknown ones share one such as `5xx`."""
    return str(status) if status in _KNOWN else f"{status // 100}xx"

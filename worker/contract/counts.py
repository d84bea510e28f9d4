r"""The measures that a partition's `counts` hold beside the outcomes: times, answers, user objects.

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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import accumulate, pairwise
from typing import Any, Final, Self

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
        bounds: Seconds; of all buckets but the last, which has none.
        buckets: The number of times that fell into each.
        sum_seconds: Of all times.
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

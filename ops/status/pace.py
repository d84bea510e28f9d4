"""Rates: of a destination between two samples, and of counts between looks at the standing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from segrelay.ops.status.standing import Standing
from segrelay.ops.status.totals import KINDS
from segrelay.worker.contract.processes import Sample

_MS_A_MINUTE = 60_000


@dataclass(frozen=True, slots=True)
class Pace:
    """The number and the duration of a destination's requests in a span of time."""

    requests: int
    asked_ms: int
    span_ms: int

    @classmethod
    def between(cls, older: Sample, newer: Sample, destination: str) -> Pace:
        """Return the pace between two samples; counts that fell because they were moved are 0."""
        then, now = (one.counts.get(destination, {}) for one in (older, newer))
        grown = {name: now.get(name, 0) - then.get(name, 0) for name in ("requests", "asked|ms")}
        requests, asked_ms = (max(0, count) for count in grown.values())
        return cls(requests, asked_ms, newer.at_ms - older.at_ms)

    @property
    def mean_seconds(self) -> float:
        """Return the mean time of a request."""
        return self.asked_ms / self.requests / 1_000 if self.requests else 0.0

    @property
    def per_minute(self) -> float:
        """Return the number of requests a minute."""
        return self.requests * _MS_A_MINUTE / self.span_ms if self.span_ms > 0 else 0.0


_OLD_MS: Final = 60_000
"""The age from which on a sample tells nothing of the present pace: no worker has written since."""
_MEASURED: Final = 6
"""Samples by which the growth of outcomes is measured: a minute, if workers run."""


def settled_of(counts: Mapping[str, int], part: str = "settled") -> int:
    """Return the settled deliveries in a sample of a destination.

    Args:
        counts: The counts of a sample, by the names that `progress.lua` gives them.
        part: All (`settled`), those of no job (`live`) or of all (`jobs`), or `job|NAME`.
    """
    jobs = sum(count for name, count in counts.items() if name.startswith("job|"))
    parts = {"live": counts.get("settled", 0) - jobs, "jobs": jobs}
    return parts.get(part, counts.get(part, 0))


def per_second(
    samples: Sequence[Sample], part: str = "settled", destination: str = ""
) -> float | None:
    """Return how many deliveries were settled a second lately; None = not known.

    Args:
        samples: The newest first.
        part: The part that is counted; see `settled_of`.
        destination: The only one that counts; "" = all.
    """
    if len(samples) < 2:  # noqa: PLR2004 - a rate is between two
        return None
    newer, older = samples[0], samples[min(_MEASURED, len(samples) - 1)]
    now, then = (
        sum(
            settled_of(counts, part)
            for name, counts in one.counts.items()
            if destination in ("", name)
        )
        for one in (newer, older)
    )
    seconds = (newer.at_ms - older.at_ms) / 1_000
    return max(0, now - then) / seconds if seconds > 0 else None


def gone_ms(
    standing: Standing, waiting: int, part: str = "settled", destination: str = ""
) -> int | None:
    """Return the time (ms) at which the waiting deliveries will be settled; None = not known.

    It is reckoned from the pace of the last minute.
    """
    is_old = standing.samples and standing.now_ms - standing.samples[0].at_ms > _OLD_MS
    pace = None if is_old else per_second(standing.samples, part, destination)
    return round(standing.now_ms + 1_000 * waiting / pace) if waiting and pace else None


LOOKS: Final = 11
"""Number of looks that are kept: at one a second, rates are those of the last ten seconds."""


class _Look(NamedTuple):
    at_seconds: float
    counts: Mapping[str, int]


@dataclass(slots=True)
class ProgressMeter:
    """Measures how quickly totals, triggers and jobs go on, by the last looks at the status.

    Args:
        most_looks: Two of them measure the time since the last look.
    """

    most_looks: int = LOOKS
    _looks: deque[_Look] = field(default_factory=deque)

    def look(self, standing: Standing, now_seconds: float) -> None:
        """Record the counts of a standing, and drop the oldest ones."""
        self._looks.append(_Look(now_seconds, dict(_counts(standing))))
        if len(self._looks) > self.most_looks:
            self._looks.popleft()

    def rates(self) -> dict[str, float] | None:
        """Return the growth of each kind of count a second; None until there are two looks."""
        found = {kind: self.of(kind) for kind in KINDS}
        return {kind: round(rate, 1) for kind, rate in found.items() if rate is not None} or None

    def of(self, name: str) -> float | None:
        """Return the growth of a count a second; None until there are two looks.

        Args:
            name: `requests`, a kind of count, `trigger|NAME`, `job|NAME` or
                `job|NAME|DESTINATION`.
        """
        if len(self._looks) < 2:  # noqa: PLR2004 - a rate is between two
            return None
        first, last = self._looks[0], self._looks[-1]
        seconds = last.at_seconds - first.at_seconds
        if seconds <= 0 or name not in first.counts or name not in last.counts:
            return None
        return (last.counts[name] - first.counts[name]) / seconds


def _counts(standing: Standing) -> Iterator[tuple[str, int]]:
    for kind in (*KINDS, "requests"):
        yield kind, standing.counts.of(kind)
    for name, trigger in standing.triggers.items():
        yield f"trigger|{name}", trigger.counts.settled
    for name, job in standing.jobs.items():
        yield f"job|{name}", job.counts.settled
        for destination, counts in job.at.items():
            yield f"job|{name}|{destination}", counts.settled

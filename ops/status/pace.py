"""The pace of a destination between two samples: how many requests, and how long each took."""

from __future__ import annotations

from dataclasses import dataclass

from worker.contract.processes.progress import Sample

_MS_A_MINUTE = 60_000


@dataclass(frozen=True, slots=True)
class Pace:
    """The requests of a destination in some time.

    Args:
        requests: That were answered, or failed.
        asked_ms: The sum of the times that this took.
    """

    requests: int
    asked_ms: int
    span_ms: int

    @classmethod
    def between(cls, older: Sample, newer: Sample, destination: str) -> Pace:
        """Return the pace between two samples; counts that were moved away count as none."""
        then, now = (one.counts.get(destination, {}) for one in (older, newer))
        grown = {name: now.get(name, 0) - then.get(name, 0) for name in ("requests", "asked|ms")}
        requests, asked_ms = (max(0, count) for count in grown.values())
        return cls(requests, asked_ms, newer.at_ms - older.at_ms)

    @property
    def mean_seconds(self) -> float:
        """Return how long a request took."""
        return self.asked_ms / self.requests / 1_000 if self.requests else 0.0

    @property
    def per_minute(self) -> float:
        """Return the requests of a minute."""
        return self.requests * _MS_A_MINUTE / self.span_ms if self.span_ms > 0 else 0.0

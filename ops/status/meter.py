"""Rates between looks at the status."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ops.status.totals import KINDS

_LOOKS: Final = 11
"""Rates of triggers and jobs are those of the last ten seconds."""
_SETTLED: Final = ("delivered", "skipped", "dead", "discarded")


@dataclass(slots=True)
class Meter:
    """Measures how quickly the counts grow, from one look to the next."""

    _last: Mapping[str, int] | None = None
    _at_seconds: float = 0.0

    def rates(self, document: Mapping[str, Any], now_seconds: float) -> dict[str, float] | None:
        """Return how much each count grew a second since the last look; None at the first."""
        counts = {kind: document[kind] for kind in KINDS}
        last, since = self._last, now_seconds - self._at_seconds
        self._last, self._at_seconds = counts, now_seconds
        if last is None or since <= 0:
            return None
        return {kind: round((counts[kind] - last[kind]) / since, 1) for kind in KINDS}


class _Look(NamedTuple):
    at_seconds: float
    counts: Mapping[str, int]


@dataclass(slots=True)
class ProgressMeter:
    """Measures by the last ten seconds how quickly totals, triggers and jobs go on."""

    _looks: deque[_Look] = field(default_factory=lambda: deque(maxlen=_LOOKS))

    def look(self, document: Mapping[str, Any], now_seconds: float) -> None:
        """Take a look."""
        self._looks.append(_Look(now_seconds, dict(_counts(document))))

    def of(self, name: str) -> float | None:
        """Return how much a count grows a second; None until there are two looks.

        Args:
            name: `requests`, a kind of count, `trigger|NAME` or `job|NAME`.
        """
        if len(self._looks) < 2:  # noqa: PLR2004 - a rate is between two
            return None
        first, last = self._looks[0], self._looks[-1]
        seconds = last.at_seconds - first.at_seconds
        if seconds <= 0 or name not in first.counts or name not in last.counts:
            return None
        return (last.counts[name] - first.counts[name]) / seconds


def _counts(document: Mapping[str, Any]) -> list[tuple[str, int]]:
    found = [(kind, document[kind]) for kind in (*KINDS, "requests")]
    for kind in ("trigger", "job"):
        for name, one in document[f"{kind}s"].items():
            found.append((f"{kind}|{name}", sum(one[each] for each in _SETTLED)))
    return found

"""Small plots of the last hour, drawn as SVG from the samples that workers keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from segrelay.ops.status.standing import Standing
from segrelay.worker.contract.processes import Sample

_WIDTH, _HEIGHT = 240, 48
_LINE: Final = Markup(
    '<svg class="plot {kind}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img"'
    ' aria-label="{label}"><polygon points="0,{height} {points} {last_x},{height}"/>'
    '<polyline points="{points}"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of one measure, with its newest value.

    Args:
        values: By minute, the oldest first; None = not known.
        unit: The unit behind the newest value, such as `ms`.
    """

    title: str
    kind: str
    values: Sequence[float | None]
    unit: str
    precision: int = 0

    @property
    def newest(self) -> str:
        """Return the newest value in words."""
        known = [value for value in self.values if value is not None]
        return f"{known[-1]:,.{self.precision}f}{self.unit}" if known else "-"

    @property
    def highest(self) -> str:
        """Return the highest value in words."""
        known = [value for value in self.values if value is not None]
        return f"{max(known):,.{self.precision}f}{self.unit}" if known else "-"

    @property
    def svg(self) -> Markup:
        """Return the drawing."""
        known = [value or 0.0 for value in self.values]
        if len(known) < 2:  # noqa: PLR2004 - a line has two ends
            return Markup('<p class="quiet">no samples yet</p>')
        highest = max(known) or 1.0
        step = _WIDTH / (len(known) - 1)
        points = " ".join(
            f"{number * step:.1f},{_HEIGHT - 2 - value / highest * (_HEIGHT - 6):.1f}"
            for number, value in enumerate(known)
        )
        return _LINE.format(
            kind=self.kind,
            width=_WIDTH,
            height=_HEIGHT,
            points=points,
            last_x=_WIDTH,
            label=f"{self.title}: now {self.newest}, at most {self.highest} in this hour",
        )


def plots_of(standing: Standing, samples: Sequence[Sample]) -> list[Plot]:
    """Return the plots of the last hour."""
    allowed = sum(one.rate * one.factor for one in standing.destinations.values())
    return [
        Plot(
            "Delivered", "good", _grown(samples, lambda name: name.startswith("delivered|")), "/min"
        ),
        Plot("Waiting", "calm", [_sum(one, _waits) for one in samples], ""),
        Plot("Dead", "bad", _grown(samples, lambda name: name.startswith("dead|")), "/min"),
        Plot("Answers take", "calm", _answer_ms(samples), " ms"),
        Plot("Rate used", "calm", _rate_used(samples, allowed), " %"),
    ]


def _waits(name: str) -> bool:
    return name == "waits" or name.startswith("waits|")


def _sum(sample: Sample, wanted: Callable[[str], bool]) -> float:
    return float(
        sum(n for counts in sample.counts.values() for name, n in counts.items() if wanted(name))
    )


def _grown(samples: Sequence[Sample], wanted: Callable[[str], bool]) -> list[float | None]:
    """Return the growth of counts a minute, between each two samples."""
    return [
        max(0.0, _sum(newer, wanted) - _sum(older, wanted)) * 60_000 / (newer.at_ms - older.at_ms)
        for older, newer in pairwise(samples)
        if newer.at_ms > older.at_ms
    ]


def _answer_ms(samples: Sequence[Sample]) -> list[float | None]:
    found: list[float | None] = []
    for older, newer in pairwise(samples):
        requests = _sum(newer, _is_requests) - _sum(older, _is_requests)
        asked = _sum(newer, _is_asked) - _sum(older, _is_asked)
        found.append(asked / requests if requests > 0 and asked >= 0 else None)
    return found


def _rate_used(samples: Sequence[Sample], allowed: float) -> list[float | None]:
    if not allowed:
        return []
    return [100 * (one or 0.0) / allowed for one in _grown(samples, _is_requests)]


def _is_requests(name: str) -> bool:
    return name == "requests"


def _is_asked(name: str) -> bool:
    return name == "asked|ms"

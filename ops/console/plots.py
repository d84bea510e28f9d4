"""Small plots of the last hour, day or week, drawn as SVG from the samples that workers keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final

import orjson
from markupsafe import Markup

from segrelay.worker.contract.counts import ASKED, REQUEST_BOUNDS, Histogram
from segrelay.worker.contract.processes import Sample

_WIDTH, _HEIGHT = 240, 48
_LINE: Final = Markup(
    '<svg class="plot {kind}" viewBox="0 0 240 48" preserveAspectRatio="none" role="img"'
    ' aria-label="{label}" data-points="{points}" data-unit="{unit}"><polygon points="{left},'
    '48 {line} {right},48"/><polyline points="{line}"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of one measure, with its newest value.

    Args:
        points: Times (ms) with values, the oldest first; None = not known.
        unit: The unit behind a value, such as ` ms`.
    """

    title: str
    kind: str
    points: Sequence[tuple[int, float | None]]
    unit: str

    @property
    def known(self) -> list[tuple[int, float]]:
        """Return the points whose values are known."""
        return [(at_ms, value) for at_ms, value in self.points if value is not None]

    @property
    def newest(self) -> str:
        """Return the newest value in words."""
        return f"{self.known[-1][1]:,.0f}{self.unit}" if self.known else "-"

    @property
    def highest(self) -> str:
        """Return the highest value in words."""
        found = max((value for _, value in self.known), default=None)
        return "-" if found is None else f"{found:,.0f}{self.unit}"

    @property
    def svg(self) -> Markup:
        """Return the drawing; the script shows the value under the pointer."""
        known = self.known
        if len(known) < 2:  # noqa: PLR2004 - a line has two ends
            return Markup('<p class="quiet">no samples yet</p>')
        first_ms, span_ms = self.points[0][0], self.points[-1][0] - self.points[0][0]
        highest = max(value for _, value in known) or 1.0
        line = [
            (_WIDTH * (at_ms - first_ms) / span_ms, _HEIGHT - 2 - value / highest * (_HEIGHT - 6))
            for at_ms, value in known
        ]
        return _LINE.format(
            kind=self.kind if any(value for _, value in known) else "calm",
            line=" ".join(f"{x:.1f},{y:.1f}" for x, y in line),
            left=f"{line[0][0]:.1f}",
            right=f"{line[-1][0]:.1f}",
            label=f"{self.title}: now {self.newest}, at most {self.highest}",
            points=orjson.dumps([(at_ms, round(value)) for at_ms, value in known]).decode(),
            unit=self.unit,
        )


def plots_of(
    samples: Sequence[Sample], allowed: float, destination: str = "", trigger: str = ""
) -> Iterator[Plot]:
    """Yield the plots of everything, of a destination, or of a trigger.

    Args:
        samples: The oldest first.
        allowed: The requests a minute that may be sent.
        destination: The only one that counts; "" = all.
        trigger: The only one that counts, of which only outcomes are sampled; "" = all.
    """
    counts = list({one.at_ms: _measures(one, destination, trigger) for one in samples}.items())

    def grown(
        title: str, kind: str, unit: str, measure: Callable[[Counter[str], float], float | None]
    ) -> Plot:
        """Return a plot of the growth from each sample to the next, and of the minutes."""
        steps = (pair for pair in pairwise(counts) if pair[1][0] > pair[0][0])
        points = [
            (at_ms, measure(new - old, (at_ms - then_ms) / 60_000))
            for (then_ms, old), (at_ms, new) in steps
        ]
        return Plot(title, kind, points, unit)

    yield grown("Delivered", "good", "/min", lambda n, minutes: n["delivered"] / minutes)
    yield grown("Dead", "bad", "/min", lambda n, minutes: n["dead"] / minutes)
    if not trigger:
        yield Plot("Waiting", "calm", [(at_ms, n["waits"]) for at_ms, n in counts], "")
        yield grown(
            "Rate used",
            "calm",
            " %",
            lambda n, minutes: 100 * n["requests"] / minutes / allowed if allowed else None,
        )
        yield grown("Answers p50", "calm", " ms", partial(_answer_ms, 0.5))
        yield grown("Answers p95", "calm", " ms", partial(_answer_ms, 0.95))


def _answer_ms(share: float, grown: Counter[str], _: float) -> float | None:
    """Return the time (ms) within which this share of the answers came."""
    seconds = Histogram.read(grown, ASKED, REQUEST_BOUNDS).quantile(share)
    return None if seconds is None else 1_000 * seconds


def _measures(sample: Sample, destination: str, trigger: str) -> Counter[str]:
    """Return the counts of a sample by their kind, and the times of answers by bucket."""
    found: Counter[str] = Counter()
    for name, counts in sample.counts.items():
        if destination in ("", name):
            for field, count in counts.items():
                kind, _, rest = field.partition("|")
                if trigger in ("", rest.partition("|")[0]):
                    found[field if kind == ASKED else kind] += count
    return found

"""Bar charts as SVG text, which Git can compare; no library is needed."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

_LEFT: Final = 190
_BAR: Final = 420
_ROW: Final = 30
_TOP: Final = 48
_STYLE: Final = """\
<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .bar { fill: #2f6f9f } .spread { stroke: #24292f }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .spread { stroke: #e6edf3 } }
</style>"""


def bars(title: str, unit: str, rows: Mapping[str, tuple[float, float, float]]) -> str:
    """Return a chart with a bar for each row.

    Args:
        title: Stands above the chart.
        unit: Stands behind the title.
        rows: The least value, the median and the largest value by label; the bar is the median.
    """
    largest = max((high for _, _, high in rows.values()), default=0) or 1
    height = _TOP + _ROW * len(rows) + 8
    root = f'width="720" height="{height}" role="img" aria-label="{escape(title)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {root}>',
        _STYLE,
        f'<text class="title" x="8" y="24">{escape(title)} ({escape(unit)})</text>',
    ]
    for number, (label, values) in enumerate(rows.items()):
        parts += _row(label, values, _BAR / largest, _TOP + _ROW * number)
    return "\n".join([*parts, "</svg>", ""])


def _row(label: str, values: tuple[float, float, float], scale: float, y: int) -> list[str]:
    low, median, high = (round(value * scale, 1) for value in values)
    middle = y + 10
    return [
        f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
        f'<rect class="bar" x="{_LEFT}" y="{y}" width="{median}" height="20" rx="2"/>',
        f'<path class="spread" d="M{_LEFT + low} {middle}H{_LEFT + high}"/>',
        f'<text x="{_LEFT + high + 8}" y="{y + 15}">{shown(values[1])}</text>',
    ]


def shown(value: float) -> str:
    """Format a number with thousands separators, or with three digits if it is below 100."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004

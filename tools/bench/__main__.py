"""Run benchmarks several times, and print their medians, spreads and ratios: `make bench`.

A benchmark starts all that it needs on this machine. In each run the variants of a scenario are
measured one right after the other, so that a ratio compares values measured under the same
conditions. The document goes to stdout; tables and progress go to stderr.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

from segrelay.ops.terminal.console import print_json, run_guarded
from tools.bench.draining import drain
from tools.bench.runs import Runs, measured_apart
from tools.bench.scenarios import SCENARIOS

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


_WARM_UP_EVENTS: Final = 5_000


def main() -> None:
    """Run the chosen benchmarks, print their results as one JSON document, and write the plots."""
    asked = _arguments()
    # An installed package has its bytecode; compiling it at each start would be measured, too.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if asked.warm_up:
        measured_apart(drain, {"events": _WARM_UP_EVENTS})
    runs = Runs(asked.runs, asked.events, say=_say)
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "runs": asked.runs,
        "scenarios": {},
    }
    for name in asked.scenarios or [n for n, each in SCENARIOS.items() if not each.takes_long]:
        found = runs.measured(SCENARIOS[name])
        report["scenarios"][name] = found
        _print_table(found)
        if asked.plots:
            _write_plot(asked.plots / f"{name}.svg", found)
    print_json(report)


def _print_table(found: dict[str, Any]) -> None:
    _say(f"\n{found['title']}, {found['unit']}")
    for label, each in found["variants"].items():
        spread = f"{shown(each['least'])} to {shown(each['most'])}"
        _say(f"  {label:48} {shown(each['median']):>10}  {spread:20}  x {each['ratio']}")
    _say("")


def _write_plot(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        label: (each["least"], each["median"], each["most"])
        for label, each in found["variants"].items()
    }
    path.write_text(bars(found["title"], found["unit"], rows), encoding="utf-8")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _arguments() -> argparse.Namespace:
    listed = "\n".join(
        f"  {name:20} {each.title}{' (only if named)' if each.takes_long else ''}"
        for name, each in SCENARIOS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description=__doc__,
        epilog=f"scenarios:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help="see below; if none is named, all but those that are marked",
    )
    parser.add_argument("--runs", type=_positive, default=3, help="how often each is measured")
    parser.add_argument(
        "--events", type=_positive, help="how many events, rows, people or requests to measure with"
    )
    parser.add_argument("--plots", type=Path, help="folder for the plots, as SVG")
    parser.add_argument(
        "--warm-up", action=argparse.BooleanOptionalAction, default=True, help="drain some first"
    )
    asked = parser.parse_args()
    unknown = [name for name in asked.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}")
    return asked


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    run_guarded(main)

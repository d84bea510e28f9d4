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
from typing import Any, Final

from segrelay.ops.terminal.console import print_json, run_guarded
from tools.bench.draining import drain
from tools.bench.runs import Runs, measured_apart
from tools.bench.scenarios import SCENARIOS


def shown(value: float) -> str:
    """Format a number with thousands separators, or with three digits if it is below 100."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004


_WARM_UP_EVENTS: Final = 5_000


def main() -> None:
    """Run the chosen benchmarks, and print their results as one JSON document."""
    asked = _arguments()
    # An installed package has its bytecode; compiling it at each start would be measured, too.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
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
    print_json(report)


def _print_table(found: dict[str, Any]) -> None:
    _say(f"\n{found['title']}, {found['unit']}")
    for label, each in found["variants"].items():
        spread = f"{shown(each['least'])} to {shown(each['most'])}"
        _say(f"  {label:48} {shown(each['median']):>10}  {spread:20}  x {each['ratio']}")
    _say("")


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
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured")
    parser.add_argument(
        "--events", type=int, help="how many events, rows, people or requests to measure with"
    )
    asked = parser.parse_args()
    unknown = [name for name in asked.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}")
    return asked


if __name__ == "__main__":
    run_guarded(main)

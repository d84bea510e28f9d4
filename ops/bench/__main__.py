"""Runs benchmarks several times, and tells their medians, spreads and ratios: `make bench`.

Everything that a benchmark needs is started by itself, on this machine. In each run the variants of
a scenario are measured one right after the other, so that a ratio compares what was measured under
the same conditions. The document goes to stdout, a table and what is going on to stderr.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from ops.bench.frame.plot import bars, shown
from ops.bench.frame.scenarios import SCENARIOS, Scenario, Variant
from ops.terminal.console import print_json
from worker.contract.own_processes import own_module
from worker.errors import OperationsMustAct

_MOST_SECONDS: Final = 1_800
_WARM_UP_EVENTS: Final = 5_000

Documents = dict[tuple[int, str, str], Any]
"""What a benchmark printed, by the number of the run, its module and its arguments."""


def main() -> int:
    """Measure, print one document, and write the plots."""
    asked = _arguments()
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "runs": asked.runs,
        "events": asked.events,
        "scenarios": {},
    }
    if asked.warm_up:
        _document("end_to_end", f"--backlog-only --events {_WARM_UP_EVENTS}")
    documents: Documents = {}
    for name in asked.scenarios or [n for n, each in SCENARIOS.items() if not each.takes_long]:
        found = _measured(SCENARIOS[name], documents, runs=asked.runs, events=asked.events)
        report["scenarios"][name] = found
        _print_table(found)
        if asked.plots:
            _write_plot(asked.plots / f"{name}.svg", found)
    print_json(report)
    return 0


def _measured(
    scenario: Scenario, documents: Documents, *, runs: int, events: int
) -> dict[str, Any]:
    values: dict[str, list[float]] = {variant.label: [] for variant in scenario.variants}
    for number in range(runs):
        for variant in scenario.variants:
            arguments = variant.arguments.format(events=events)
            key = (number, scenario.module, arguments)
            if key not in documents:
                _say(f"run {number + 1} of {runs}: {scenario.module} {arguments}")
                documents[key] = _document(scenario.module, arguments)
            values[variant.label].append(_figure(documents[key], variant))
    return {"title": scenario.title, "unit": scenario.unit, "variants": summed_up(values)}


def summed_up(values: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float | None]]:
    """Return the median and spread of each variant, and its ratio to the first.

    Args:
        values: By label, one of each run, in the order of the runs.
    """
    base = next(iter(values.values()))
    return {
        label: {
            "least": min(found),
            "median": statistics.median(found),
            "most": max(found),
            "ratio": _ratio(found, base),
        }
        for label, found in values.items()
    }


def _ratio(found: Sequence[float], base: Sequence[float]) -> float | None:
    """Return the median of the ratios to the first variant, each within one run."""
    ratios = [value / first for value, first in zip(found, base, strict=True) if first]
    return round(statistics.median(ratios), 3) if ratios else None


def _document(module: str, arguments: str) -> Any:
    """Run one benchmark and return its document.

    Raises:
        OperationsMustAct: It fails, or takes half an hour.
    """
    command = own_module(f"ops.bench.{module}", *shlex.split(arguments))
    try:
        ended = subprocess.run(command, capture_output=True, check=True, timeout=_MOST_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        told = (error.stderr or b"").decode(errors="replace")[-2_000:]
        raise OperationsMustAct(f"`{shlex.join(command[1:])}` failed:\n{told}") from error
    return orjson.loads(ended.stdout)


def _figure(document: Any, variant: Variant) -> float:
    for step in variant.figure.split("/"):
        document = document[int(step) if isinstance(document, list) else step]
    return float(document)


def _print_table(found: dict[str, Any]) -> None:
    _say(f"\n{found['title']}, {found['unit']}")
    for label, each in found["variants"].items():
        spread = f"{shown(each['least'])} to {shown(each['most'])}"
        _say(f"  {label:32} {shown(each['median']):>10}  {spread:20}  x {each['ratio']}")
    _say("")


def _write_plot(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        label: (each["least"], each["median"], each["most"])
        for label, each in found["variants"].items()
    }
    path.write_text(bars(found["title"], found["unit"], rows))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(SCENARIOS)
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"all but the longest, or some of: {names}"
    )
    parser.add_argument("--runs", type=int, default=3, help="of each scenario")
    parser.add_argument("--events", type=int, default=50_000, help="that are drained or read")
    parser.add_argument("--plots", type=Path, help="a folder for the plots, as SVG")
    parser.add_argument(
        "--warm-up", action=argparse.BooleanOptionalAction, default=True, help="drain some first"
    )
    asked = parser.parse_args()
    unknown = [name for name in asked.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {unknown[0]!r}; there are: {names}")
    return asked


if __name__ == "__main__":
    sys.exit(main())

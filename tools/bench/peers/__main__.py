"""Measure segrelay and its peers in one run: `make bench-peers` (ARGS="--events 20000 --runs 3").

All contestants have the same machine, events, sandbox and settings of Redis. All events are put
into the queue first; then the workers start, and the time is taken from the first user that the
sandbox receives to the last. With `--kills`, workers are killed meanwhile: users that are missing
at the end were lost, and users that came again were sent twice. `--limit` sets the requests a
minute that the sandbox takes.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from segrelay.ops.terminal.console import print_json
from segrelay.sandbox.people import Happening, happenings, payloads
from segrelay.worker.errors import SegrelayError
from tools.bench.peers.contest import CONTESTANTS, Contestant, ContestResult


def main() -> int:
    """Measure the contestants, and print the results as one JSON document and a table."""
    arguments = _arguments()
    results: dict[str, list[ContestResult]] = {}
    for number in range(arguments.runs):
        for contestant in _chosen(arguments.only):
            sys.stderr.write(f"run {number + 1}: {contestant.name}\n")
            try:
                result = _run(contestant, arguments)
            except SegrelayError as error:
                sys.stderr.write(f"  left out: {error.message}\n")
            else:
                results.setdefault(contestant.name, []).append(result)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "arguments": vars(arguments),
        "results": {name: _summed_up(found) for name, found in results.items()},
    }
    print_json(report)
    _print_table(results)
    return 0


def _run(contestant: Contestant, arguments: argparse.Namespace) -> ContestResult:
    count = max(arguments.least, round(arguments.events * contestant.share))
    rng = random.Random(arguments.seed)  # noqa: S311 - invented people
    happened = _one_event_each(rng, count)
    events = list(payloads(happened, profile_bytes=arguments.profile_bytes))
    with tempfile.TemporaryDirectory(prefix="segrelay-peers-") as folder:
        return contestant.run(Path(folder), events, arguments.limit, arguments.kills)


def _one_event_each(rng: random.Random, people: int) -> list[Happening]:
    """Invent one entrance or exit for each person.

    No event supersedes another, so that contestants that ignore the order send the same.
    """
    invented = happenings(rng, events=people, people=people, ties=0.0)
    return [
        replace(each, email=f"person{number}@example.com") for number, each in enumerate(invented)
    ]


def _chosen(only: Sequence[str]) -> list[Contestant]:
    chosen = [each for each in CONTESTANTS if not only or each.name in only]
    if any(each.needs_node for each in chosen) and not shutil.which("node"):
        sys.stderr.write("BullMQ is left out: Node is not installed.\n")
        chosen = [each for each in chosen if not each.needs_node]
    return chosen


def _summed_up(found: list[ContestResult]) -> dict[str, Any]:
    speeds = [result.events_per_second for result in found]
    return {
        "events_per_second": {
            "min": min(speeds),
            "median": statistics.median(speeds),
            "max": max(speeds),
        },
        "runs": [asdict(result) for result in found],
    }


def _print_table(results: dict[str, list[ContestResult]]) -> None:
    ours = [result.events_per_second for result in results.get("segrelay", [])]
    base = statistics.median(ours) if ours else 0
    rows = [("", "events/s", "segrelay is", "requests/1,000", "CPU s/1,000", "lost", "twice")]
    for name, found in results.items():
        speed = statistics.median(result.events_per_second for result in found)
        last = found[-1]
        rows.append((
            name,
            f"{speed:,.0f}",
            f"{base / speed:.2f} x" if base and speed else "",
            f"{last.requests_per_thousand:,.1f}",
            f"{last.cpu_seconds_per_thousand:.2f}",
            f"{last.lost}",
            f"{last.sent_twice}",
        ))  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stderr.write(line.rstrip() + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--least", type=int, default=300, help="events for the slowest")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--profile-bytes", type=int, default=1_000)
    parser.add_argument("--limit", type=int, default=1_000_000, help="requests a minute")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

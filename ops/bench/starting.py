"""How long things take to start: `python -m ops.bench.starting --triggers 2 400 --runs 5`.

Commands that only print, a worker until it is ready, and its first delivery.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ops.bench.frame.ground import audiences_of, pairs, processor_seconds_of
from ops.rig import Rig
from ops.terminal.console import print_json

_COMMANDS: Final = {"help": ("--help",), "version": ("--version",), "completion": ()}


def commands(runs: int) -> dict[str, dict[str, float]]:
    """Return how long commands that only print take."""
    return {name: _spread(lambda n=name: _run(n), runs) for name in _COMMANDS}  # type: ignore[misc]


def _run(name: str) -> float:
    completes = {
        "_SEGRELAY_COMPLETE": "complete_bash",
        "COMP_WORDS": "segrelay st",
        "COMP_CWORD": "1",
    }
    begun = time.perf_counter()
    subprocess.run(
        [Path(sys.prefix) / "bin" / "segrelay", *_COMMANDS[name]],
        env={**os.environ, **(completes if name == "completion" else {})},
        capture_output=True,
        check=False,
    )
    return time.perf_counter() - begun


def worker(triggers: int, runs: int) -> dict[str, Any]:
    """Return how long a worker takes with so many triggers."""
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
        Rig(Path(folder), exit_events=False, more=pairs(audiences_of(triggers))) as rig,
    ):
        processor_seconds: list[float] = []
        ready = _spread(lambda: _ready(rig, processor_seconds), runs)
    return {
        "triggers": triggers,
        "ready": ready,
        "processor_seconds_until_ready": round(statistics.median(processor_seconds), 2),
    }


def _ready(rig: Rig, processor_seconds: list[float]) -> float:
    begun = time.perf_counter()
    started = rig.start_worker()
    rig.wait_until_ready()
    seconds = time.perf_counter() - begun
    processor_seconds.append(processor_seconds_of(started.pid))
    rig.stop_workers()
    rig.worker_log(0).unlink()
    return seconds


def _spread(measured: Callable[[], float], runs: int) -> dict[str, float]:
    seconds = [measured() for _ in range(runs)]
    return {
        "median_seconds": round(statistics.median(seconds), 3),
        "least_seconds": round(min(seconds), 3),
        "most_seconds": round(max(seconds), 3),
    }


def main() -> None:
    """Measure, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triggers", type=int, nargs="+", default=[2, 400])
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    report = {
        "commands": commands(asked.runs),
        "workers": [worker(count, asked.runs) for count in asked.triggers],
    }
    print_json(report)


if __name__ == "__main__":
    main()

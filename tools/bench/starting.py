"""Benchmarks of starting: commands that only print, and a worker until it is ready."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from segrelay.ops.demo.rig import Rig, trigger_pairs
from tools.bench.frame.redis_alone import audiences_of, processor_seconds_of
from tools.bench.frame.rigs import bench_rig

_STARTS: Final = 3
_COMMANDS: Final = {"help": ("--help",), "version": ("--version",), "completion": ()}


def start(triggers: int) -> dict[str, Any]:
    """Measure how long commands and a worker with this many triggers take to start."""
    with bench_rig(more=trigger_pairs(audiences_of(triggers))) as rig:
        processor_seconds: list[float] = []
        ready = _spread(lambda: _ready(rig, processor_seconds))
    return {
        "commands": {name: _spread(partial(_run, name)) for name in _COMMANDS},
        "worker": ready,
        "processor_seconds_until_ready": round(statistics.median(processor_seconds), 2),
    }


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


def _ready(rig: Rig, processor_seconds: list[float]) -> float:
    begun = time.perf_counter()
    started = rig.start_worker()
    rig.wait_until_ready()
    seconds = time.perf_counter() - begun
    processor_seconds.append(processor_seconds_of(started.pid))
    rig.stop_workers()
    rig.worker_log(0).unlink()
    return seconds


def _spread(measured: Callable[[], float]) -> dict[str, float]:
    seconds = [measured() for _ in range(_STARTS)]
    return {
        "median_seconds": round(statistics.median(seconds), 3),
        "least_seconds": round(min(seconds), 3),
        "most_seconds": round(max(seconds), 3),
    }

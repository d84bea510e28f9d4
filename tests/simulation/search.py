"""Searching histories for one that breaks a promise: `python -m tests.simulation.search 0 1000`.

What it finds is shrunk and printed; `--as-found` only prints its seed.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from segrelay.ops.embedded import ensure_running, stop
from tests.simulation.history import History, history_of
from tests.simulation.playing import broken_promise
from tests.simulation.shrinking import shrunk, told
from tests.simulation.system import System, systems


@contextmanager
def own_systems() -> Iterator[Callable[..., System]]:
    """Yield what makes systems, on a Valkey of its own."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "valkey"
        data_dir.mkdir()
        try:
            with systems(ensure_running(data_dir).url, Path(folder)) as make:
                yield make
        finally:
            stop(data_dir)


def search(first: int, last: int, make: Callable[..., System]) -> tuple[int, str]:
    """Return the first seed whose history breaks a promise, and which; -1 = none does."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    begun, computed = time.monotonic(), time.process_time()
    seed, broken = first - 1, ""
    while seed < last - 1 and not broken:
        seed += 1
        broken = broken_promise(history_of(seed), make)
    rate = (seed - first + 1) / (time.process_time() - computed)
    sys.stderr.write(f"{time.monotonic() - begun:.0f} s, {rate:.1f} a processor second\n")
    return seed if broken else -1, broken


def explained(history: History, broken: str, make: Callable[..., System]) -> str:
    """Return a history that breaks a promise, shrunk to few acts, as text."""

    def breaks(part: History) -> bool:
        return broken_promise(part, make)[:20] == broken[:20]

    return f"{broken}\n{told(shrunk(history, breaks))}"


def main(first: str, last: str, *more: str) -> int:
    with own_systems() as make:
        seed, broken = search(int(first), int(last), make)
        if seed < 0:
            return 0
        history = history_of(seed)
        text = broken if more else explained(history, broken, make)
        sys.stdout.write(f"seed {seed}: {text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

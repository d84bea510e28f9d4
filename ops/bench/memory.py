"""Memory of each process of a worker in a backfill of many different people.

Run it with `python -m ops.bench.memory [PEOPLE]`. Nobody comes twice, so that whatever a process
keeps of a person shows. The people are published while they are drained, a few thousand ahead.
Prints JSON; exit code 1 says that a process grew by more than `--most-grown` MB after a fifth of
the way. A million people take ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ops.bench.gate import start_workers
from ops.invented import AUDIENCES, Happening, payloads
from ops.rig import Rig
from ops.terminal.console import print_json
from producer.publish import Publisher
from worker.contract.words import BACKFILL
from worker.errors import OperationsMustAct

CHUNK: Final = 5_000
AHEAD: Final = 30_000
"""So many may wait: enough for every process, and little enough for Redis' memory."""
LIMIT: Final = 1_000_000
"""Requests a minute: none is held back."""
PROCESSES: Final = 3
_LOOK_SECONDS: Final = 0.2
_STANDS_STILL_SECONDS: Final = 60.0

NodeMegabytes = dict[int, float]
"""MB by process id."""


def entrances(people: int) -> Iterator[list[bytes]]:
    """Yield the payloads of so many people in chunks, each of whom enters one audience."""
    now_us = int(datetime.now(UTC).timestamp() * 1_000_000)
    for first in range(0, people, CHUNK):
        numbers = range(first, min(first + CHUNK, people))
        yield list(payloads([_entrance(n, now_us - people + n) for n in numbers]))


def _entrance(number: int, time_us: int) -> Happening:
    audience = AUDIENCES[number % len(AUDIENCES)]
    return Happening(f"person{number}@example.com", audience, is_exit=False, time_us=time_us)


def memory_of(parent: int) -> NodeMegabytes:
    """Return what a process and its children hold in memory."""
    table = subprocess.run(
        ("ps", "-A", "-o", "pid=,ppid=,rss="),  # noqa: S607 - of whichever system this is
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
    return {pid: kilobytes / 1024 for pid, ppid, kilobytes in rows if parent in (pid, ppid)}


def run(rig: Rig, people: int) -> list[tuple[int, NodeMegabytes]]:
    """Publish and drain; returns how many were drained, and the memory by then, again and again.

    Raises:
        OperationsMustAct: Nothing is drained any more.
    """
    publisher = Publisher(rig.client, rig.settings)
    chunks = entrances(people)
    samples: list[tuple[int, NodeMegabytes]] = []
    published = drained = 0
    moved_at = time.monotonic()
    while drained < people:
        while published < people and published - drained <= AHEAD:
            chunk = next(chunks)
            publisher.publish(chunk, BACKFILL)
            published += len(chunk)
            drained = published - rig.waiting()
        before, drained = drained, published - rig.waiting()
        samples.append((drained, memory_of(rig.workers[0].pid)))
        moved_at = time.monotonic() if drained != before else moved_at
        if time.monotonic() - moved_at > _STANDS_STILL_SECONDS:
            raise OperationsMustAct(
                f"{people - drained} people are not delivered; see {rig.worker_log(0)}."
            )
        time.sleep(_LOOK_SECONDS)
    return samples


def report(samples: list[tuple[int, NodeMegabytes]], people: int, parent: int) -> dict[str, Any]:
    """Return each process' memory at a fifth of the way, and the most that it held later."""
    late = [memory for drained, memory in samples if drained >= people / 5]
    processes = [
        {
            "process": "parent" if pid == parent else "child",
            "at_a_fifth_mb": round(late[0][pid], 1),
            "at_the_end_mb": round(late[-1][pid], 1),
            "most_mb": round(max(memory.get(pid, 0) for memory in late), 1),
            "grown_mb": round(max(memory.get(pid, 0) for memory in late) - late[0][pid], 1),
        }
        for pid in late[0].keys() & late[-1].keys()
    ]
    return {
        "people": people,
        "processes": sorted(processes, key=lambda row: (row["process"], row["at_the_end_mb"])),
        "replaced": len(late[0].keys() - late[-1].keys()),
        "most_grown_mb": max(row["grown_mb"] for row in processes),
    }


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="segrelay-memory-") as folder:
        sandbox = {"keep_scalars": False, "limit_per_minute": LIMIT}
        with Rig(Path(folder), rate=f"{LIMIT}/min", sandbox_settings=sandbox) as rig:
            start_workers(rig, 1, PROCESSES)
            begun = time.monotonic()
            found = report(run(rig, arguments.people), arguments.people, rig.workers[0].pid)
            found["people_per_second"] = round(arguments.people / (time.monotonic() - begun))
    print_json(found)
    return int(found["most_grown_mb"] > arguments.most_grown or found["replaced"] > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("people", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--most-grown", type=float, default=25.0, help="MB of any process")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

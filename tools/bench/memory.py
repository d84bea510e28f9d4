"""A benchmark of memory: what each process of a worker keeps in a long backfill."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle, islice
from typing import Any, Final

from segrelay.ops.demo.rig import Rig
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.sandbox.people import AUDIENCES, Happening, payloads
from segrelay.worker.contract.words import BACKFILL
from segrelay.worker.errors import OperationsMustAct
from tools.bench.rigs import bench_rig, start_workers

_CHUNK: Final = 5_000
_AHEAD: Final = 30_000
"""Deliveries that may wait: enough to keep all processes busy, few enough for Redis' memory."""
_LIMIT: Final = 1_000_000
"""Rate limit in requests a minute, higher than the workers can reach."""
_PROCESSES: Final = 3
_LOOK_SECONDS: Final = 0.2
_STANDS_STILL_SECONDS: Final = 60.0

NodeMegabytes = dict[int, float]
"""Memory in MB by process id."""
_MOST_GROWN_MB: Final = 25.0
"""Growth of a process in MB, after a fifth of the people, above which the benchmark fails."""


def memory(events: int) -> dict[str, Any]:
    """Measure the memory of a worker's processes while many different people are delivered.

    Nobody comes twice, so that everything that a process keeps of a person shows.

    A million people take ten minutes on two cores.
    """
    sandbox = {"keep_scalars": False, "limit_per_minute": _LIMIT}
    with bench_rig(rate=f"{_LIMIT}/min", sandbox_settings=sandbox) as rig:
        start_workers(rig, 1, _PROCESSES)
        found = _report(_run(rig, events), events, rig.workers[0].pid)
    if found["most_grown_mb"] > _MOST_GROWN_MB or found["replaced"]:
        raise OperationsMustAct(f"A process of the worker grew too much or was replaced: {found}")
    return found


def _entrances(people: int) -> Iterator[list[bytes]]:
    """Yield chunks of payloads: each person enters one audience."""
    begun_us = int(datetime.now(UTC).timestamp() * 1_000_000) - people
    entrances = (
        Happening(f"person{n}@example.com", audience, is_exit=False, time_us=begun_us + n)
        for n, audience in zip(range(people), cycle(AUDIENCES), strict=False)
    )
    while chunk := list(islice(entrances, _CHUNK)):
        yield list(payloads(chunk))


def _memory_of(parent: int) -> NodeMegabytes:
    """Return the resident memory of a process and of its children."""
    table = subprocess.run(
        ("ps", "-A", "-o", "pid=,ppid=,rss="),  # noqa: S607 - of whichever system this is
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    rows = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
    return {pid: kilobytes / 1024 for pid, ppid, kilobytes in rows if parent in (pid, ppid)}


def _run(rig: Rig, people: int) -> list[tuple[int, NodeMegabytes]]:
    """Publish entrances while they are drained; return samples of the number drained and memory."""
    publisher = Publisher(rig.client, rig.settings)
    chunks = _entrances(people)
    samples: list[tuple[int, NodeMegabytes]] = []
    published = drained = 0
    moved_at = time.monotonic()
    while drained < people:
        while published < people and published - drained <= _AHEAD:
            chunk = next(chunks)
            publisher.publish(chunk, PublishOptions(BACKFILL))
            published += len(chunk)
            drained = published - rig.waiting()
        before, drained = drained, published - rig.waiting()
        samples.append((drained, _memory_of(rig.workers[0].pid)))
        moved_at = time.monotonic() if drained != before else moved_at
        if time.monotonic() - moved_at > _STANDS_STILL_SECONDS:
            raise OperationsMustAct(
                f"{people - drained} people are not delivered; see {rig.worker_log(0)}."
            )
        time.sleep(_LOOK_SECONDS)
    return samples


def _report(samples: list[tuple[int, NodeMegabytes]], people: int, parent: int) -> dict[str, Any]:
    """Return each process' memory after a fifth of the people, and its peak afterwards."""
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

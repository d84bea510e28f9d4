"""A benchmark of `segrelay backfill start`: how many rows a second it reads into Redis."""

from __future__ import annotations

import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from tools.bench.frame.redis_alone import (
    RedisAlone,
    processor_seconds_of,
    redis_alone,
    redis_seconds,
)
from tools.bench.publish import CONFIGURATION

_ROW_BYTES: Final = 1_024
_LOOK_SECONDS: Final = 0.1
_COMMAND: Final = Path(sysconfig.get_path("scripts")) / "segrelay"
_ARGUMENTS: Final = ("--audience", "vip", "--as-of", "2026-11-01T00:00:00Z", "--json")
_TOP: Final = "[redis]\nhigh_water = 1_000_000_000\n"


def write_rows(path: Path, rows: int) -> None:
    """Write profiles of 1 KB as JSON lines."""
    with path.open("wb") as file:
        for number in range(rows):
            row: dict[str, Any] = {
                "email": f"person{number}@example.com",
                "_uid": f"{10**18 + number}",
                "first_name": "Ann",
                "last_name": "Archer",
                "score": number % 100,
                "is_mobile": "t",
                "visit_city": "Portland",
            }
            missing = _ROW_BYTES - len(orjson.dumps(row)) - len('"pages":[],')
            row["pages"] = [f"/p/{number:040}/{at:05}" for at in range(missing // 52)]
            file.write(orjson.dumps(row) + b"\n")


@dataclass(slots=True)
class ProcessTree:
    """The memory and processor time of a process and its descendants.

    Args:
        most_bytes: Most memory of all at one moment; shared pages are counted once.
        seconds: Processor time by process id, as last seen.
    """

    pid: int
    most_bytes: int = 0
    seconds: dict[int, float] = field(default_factory=dict)

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """Sample the memory and processor time until the process has ended."""
        while process.poll() is None:
            self.look()
            time.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Sample the memory and processor time once."""
        members = list(_with_descendants(self.pid))
        self.most_bytes = max(self.most_bytes, sum(map(_bytes_of, members)))
        for pid in members:
            self.seconds[pid] = max(self.seconds.get(pid, 0.0), processor_seconds_of(pid))


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text("utf-8").split():
                yield from _with_descendants(int(child))


def _bytes_of(pid: int) -> int:
    """Return the proportional set size of a process; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def backfill(events: int, partitions: int = 16) -> dict[str, Any]:
    """Measure `segrelay backfill start` for rows of 1 KB, with all processes that it starts.

    Redis, on the same machine, writes each entry to its disk. Nothing is delivered meanwhile.
    """
    with redis_alone(f"{_TOP}partitions = {partitions}\n{CONFIGURATION}") as on:
        write_rows(on.folder / "rows.ndjson", events)
        return _read(on, events)


def _read(on: RedisAlone, rows: int) -> dict[str, Any]:
    redis_before = redis_seconds(on.client)
    begun = time.perf_counter()
    command = [str(_COMMAND), "backfill", "start", "rows.ndjson", *_ARGUMENTS]
    with subprocess.Popen(
        command, cwd=on.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        tree = ProcessTree(process.pid)
        tree.watch(process)
        told = orjson.loads(process.communicate()[0])
    seconds = time.perf_counter() - begun
    in_redis = redis_seconds(on.client) - redis_before
    assert (told["rows"], told["accepted"]) == (rows, rows), told
    reading = sum(tree.seconds.values())
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "processes": len(tree.seconds),
        "most_memory_mb": round(tree.most_bytes / 1_000_000),
        "reading_cpu_us_a_row": round(1e6 * reading / rows, 1),
        "redis_cpu_us_a_row": round(1e6 * in_redis / rows, 1),
    }

"""Rows a second that a backfill reads into Redis: `python -m ops.bench.backfill [ROWS …]`.

A file of 1 KB NDJSON for each size; what is measured is `segrelay backfill start` from its first
to its last row, with the processes that it starts and the most memory that they took together.
Redis, on the same machine, writes each entry to its disk. Nothing is delivered meanwhile.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from ops.backfill.starting import WantedJob, spec_of
from ops.bench.publish import CONFIGURATION
from ops.embedded.lifecycle import ensure_running, stop
from producer.backfill.job import JobBook
from producer.backfill.reading import read_job
from worker.contract.redis.connection import connect
from worker.contract.settings import load_settings

_ROWS: Final = (200_000,)
_ROW_BYTES: Final = 1_024
_LOOK_SECONDS: Final = 0.2
_TOP: Final = '[redis]\nurl = "embedded"\nhigh_water = 1_000_000_000\n'


def write_rows(path: Path, rows: int) -> None:
    """Write so many profiles of 1 KB."""
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
class Memory:
    """Watches how much memory a process takes together with its children.

    Args:
        most_bytes: At one moment; what they share is counted once.
    """

    most_bytes: int = 0
    _over: bool = False

    def watch(self) -> None:
        """Look until it is over."""
        while not self._over:
            self.most_bytes = max(self.most_bytes, sum(map(_bytes_of, _family())))
            time.sleep(_LOOK_SECONDS)

    def end(self) -> None:
        """Stop looking."""
        self._over = True


def _family() -> list[int]:
    me = os.getpid()
    children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    return [me, *map(int, children)]


def _bytes_of(pid: int) -> int:
    """Return the proportional set size of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def measure(rows: int) -> dict[str, Any]:
    """Return what one size gives."""
    with tempfile.TemporaryDirectory(prefix="segrelay-bench-") as name:
        folder = Path(name)
        (folder / "templates").mkdir()
        (folder / "templates" / "enter.jsonnet").write_text("{}")
        (folder / "segrelay.toml").write_text(_TOP + CONFIGURATION)
        write_rows(folder / "rows.ndjson", rows)
        try:
            return _read(folder, rows)
        finally:
            stop(folder / ".segrelay")


def _read(folder: Path, rows: int) -> dict[str, Any]:
    settings = load_settings(folder / "segrelay.toml", environ={})
    memory = Memory()
    watching = threading.Thread(target=memory.watch, daemon=True)
    with closing(connect(ensure_running(settings.redis.data_dir).url)) as client:
        book = JobBook(client)
        wanted = WantedJob(
            [str(folder / "rows.ndjson")], audience="vip", as_of="2026-11-01T00:00:00Z"
        )
        watching.start()
        begun = time.perf_counter()
        book.create(spec_of(wanted, settings, book))
        job = book.named("vip")
        read_job(book, job, settings, lambda _: None)
        seconds = time.perf_counter() - begun
        memory.end()
        tally = book.named("vip").tally
        used: dict[str, Any] = client.info("cpu")
    assert (tally.rows, tally.accepted) == (rows, rows), tally
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "processes": job.spec.stripes,
        "most_memory_mb": round(memory.most_bytes / 1_000_000),
        "redis_cpu_us_a_row": round(1e6 * (used["used_cpu_user"] + used["used_cpu_sys"]) / rows, 1),
    }


def main() -> None:
    """Print the results."""
    sizes = [int(each) for each in sys.argv[1:]] or _ROWS
    report = [measure(rows) for rows in sizes]
    sys.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()

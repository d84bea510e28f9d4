"""A night with very many people: two files are read and drained, and a sync compares all of them.

Every person enters two audiences, the second one half of the run later. A tenth of the events is
what may wait at most, so that a smaller run has the same course as one of ten million events.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import httpx
import orjson

from segrelay.ops.demo.rig import Rig
from segrelay.ops.embedded import lifecycle as embedded
from segrelay.ops.run.up import own_command
from segrelay.sandbox.people import AUDIENCES, invented_person
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.scanning import scan_keys
from segrelay.worker.errors import OperationsMustAct
from tools.bench.intake import ProcessTree, bytes_of, with_descendants
from tools.bench.rigs import bench_rig, start_workers, used_memory, wait_until, write_lines

_EVENTS_A_PERSON: Final = 2
_PARTS: Final = 10
_SYNC: Final = "members"
_SYNCED: Final = AUDIENCES[0]
_LIMIT: Final = 1_000_000
"""Rate limit in requests a minute, higher than the workers can reach."""
_PROCESSES: Final = 3
_TABLES: Final = """
[sync.members]
audience = "{audience}"
every = "30d"
source = "file:export-*.ndjson"

[console]
listen = "127.0.0.1:{port}"
"""
_LOOK_SECONDS: Final = 0.5
_STATUS_SECONDS: Final = 5.0
_LOAD_SECONDS: Final = 600.0
_START_SECONDS: Final = 60.0
_STANDS_STILL_SECONDS: Final = 120.0
_CALM_SECONDS: Final = 40.0
"""The age of an export, longer than that of one that may still be written."""
_MEGABYTE: Final = 1_000_000
_MEASURED: Final = 5_000
"""The most keys of a kind whose memory is measured."""


def night(events: int) -> dict[str, Any]:
    """Measure backfills, their drain, a restart of Redis, and two runs of a sync.

    Args:
        events: Twice the number of people.
    """
    people = events // _EVENTS_A_PERSON
    port = embedded.free_port()
    with bench_rig(
        rate=f"{_LIMIT}/min",
        redis_lines=f"high_water = {max(1, events // _PARTS)}",
        sandbox_settings={"keep_scalars": False, "limit_per_minute": _LIMIT},
        more=_TABLES.format(audience=_SYNCED, port=port),
    ) as rig:
        rows = rig.folder / "people.ndjson"
        _write_people(rows, people)
        console = rig.start_beside("console")
        start_workers(rig, 1, _PROCESSES)
        empty = used_memory(rig.client)
        found: dict[str, Any] = {"people": people}
        with _asking(rig, port) as answers:
            found["drained"] = _drained(rig, rows, events, console.pid)
            found |= {"after_the_drain": _memory(rig, people, empty)}
            found["synced"] = [_synced(rig, rows, people, number) for number in range(2)]
            found |= {"after_the_sync": _memory(rig, people, empty)}
        found["answers"] = answers.summary()
        found["restart"] = _restart(rig)
    return found


def _write_people(path: Path, people: int) -> None:
    """Write the profiles of invented people as JSON lines."""
    rows = ({"_uid": f"{10**18 + number}", **invented_person(number)} for number in range(people))
    write_lines(path, map(orjson.dumps, rows))


def _drained(rig: Rig, rows: Path, events: int, console: int) -> dict[str, Any]:
    """Read the rows once for each audience while they are drained; return each part's figures."""
    begun, seconds, memory = time.monotonic(), [0.0], [_memory_of(rig, console)]
    moved_at, before = begun, 0
    with _reading(rig, rows) as reading:
        while len(seconds) <= _PARTS:
            time.sleep(_LOOK_SECONDS)
            done, now = _ended(rig), time.monotonic()
            moved_at, before = (now, done) if done != before else (moved_at, before)
            while len(seconds) <= _PARTS and done >= len(seconds) * events / _PARTS:
                seconds.append(now - begun)
                memory.append(_memory_of(rig, console))
            if now - moved_at > _STANDS_STILL_SECONDS:
                raise OperationsMustAct(f"{done} of {events} events ended; see {rig.folder}.")
        told = reading()
    lasted = [after - at for at, after in pairwise(seconds)]
    rates = [round(events / _PARTS / each) for each in lasted]
    return {
        "seconds": round(seconds[-1], 1),
        "events_per_second": round(events / seconds[-1]),
        "rate_of_each_part": rates,
        "last_to_second": round(rates[-1] / rates[1], 3),
        **_grown(memory),
        **told,
    }


@contextmanager
def _reading(rig: Rig, rows: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """Read the rows for two audiences, one after the other, in a thread."""
    peaks: list[float] = []
    failed: list[str] = []

    def read() -> None:
        begun = datetime.now(UTC) - timedelta(hours=1)
        for number, audience in enumerate(AUDIENCES[:_EVENTS_A_PERSON]):
            as_of = (begun + timedelta(minutes=number)).isoformat()
            command = ("backfill", "start", str(rows), "--audience", audience, "--as-of", as_of)
            tree, error = _run(rig, *command, "--job", f"night-{audience}", "--json")
            peaks.append(round(tree.most_bytes / _MEGABYTE, 1))
            if error:
                failed.append(error)
                return

    def told() -> dict[str, Any]:
        thread.join()
        if failed:
            raise OperationsMustAct(failed[0])
        return {"reading_most_mb": peaks}

    thread = Thread(target=read)
    thread.start()
    try:
        yield told
    finally:
        thread.join()


def _run(rig: Rig, *arguments: str) -> tuple[ProcessTree, str]:
    """Run one of our commands, and return its processes' memory, and what it said if it failed."""
    with subprocess.Popen(
        own_command(*arguments),
        env=rig.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(rig.folder / "command.log").open("wb"),
    ) as process:
        tree = ProcessTree(process.pid)
        tree.watch(process)
    failed = process.returncode != 0
    return tree, (rig.folder / "command.log").read_text("utf-8")[-2_000:] if failed else ""


def _ended(rig: Rig) -> int:
    """Return the number of deliveries that have come to their end."""
    ends = ("delivered|", "skipped|", "dead|")
    return sum(count for name, count in rig.counts().items() if name.startswith(ends))


def _memory_of(rig: Rig, console: int) -> dict[int, float]:
    """Return the proportional memory in MB of the worker's processes and of the console."""
    pids = [*with_descendants(rig.workers[0].pid), *with_descendants(console)]
    return {pid: bytes_of(pid) / _MEGABYTE for pid in pids}


def _grown(memory: list[dict[int, float]]) -> dict[str, Any]:
    """Return the memory of each process after each part, and what any grew by after the second."""
    lasting = [pid for pid in memory[2] if all(pid in one for one in memory[2:])]
    grown = [max(one[pid] for one in memory[2:]) - memory[2][pid] for pid in lasting]
    return {
        "memory_mb": [[round(one.get(pid, 0.0), 1) for one in memory] for pid in lasting],
        "most_grown_mb": round(max(grown), 1),
        "replaced": len(memory[2].keys() - memory[-1].keys()),
    }


def _export(rig: Rig, rows: Path, number: int) -> None:
    """Give the rows a name that the sync reads, and a time that is later than of the one before."""
    export = rig.folder / f"export-{number}.ndjson"
    os.link(rows, export)
    written = time.time() - _CALM_SECONDS + number
    os.utime(export, (written, written))


def _memory(rig: Rig, people: int, empty: int) -> dict[str, Any]:
    """Return what Redis keeps for each person, and how many keys there are beside the ledgers."""
    wait_until(lambda: not rig.waiting(), _STANDS_STILL_SECONDS, "Deliveries still wait.")
    told: Any = rig.client.info("memory")
    keyspace: Any = rig.client.info("keyspace")
    return {
        "redis_bytes_a_person": round((used_memory(rig.client) - empty) / people, 1),
        "redis_mb": round(int(told["used_memory"]) / _MEGABYTE, 1),
        "redis_peak_mb": round(int(told["used_memory_peak"]) / _MEGABYTE, 1),
        "other_keys": int(keyspace["db0"]["keys"]) - people,
        "bytes_a_person_of": _by_kind(rig, people),
    }


def _by_kind(rig: Rig, people: int) -> dict[str, float]:
    """Return how much of Redis' memory each kind of a partition's keys takes, in bytes a person.

    Of ledgers some are measured. The table of keys is in none of them, and neither is what Redis
    needs for itself.
    """
    names: dict[str, set[bytes]] = {}
    for key in chain.from_iterable(scan_keys(rig.client, rig.partitions(), "*")):
        part = key.partition(b"}")[2]
        kind = "ledger" if part[:1] == b"l" and part != b"lease" else part.split(b":")[0].decode()
        names.setdefault(kind, set()).add(key)
    sizes = {}
    for kind, found in names.items():
        pipe = rig.client.pipeline(transaction=False)
        measured = list(found)[:_MEASURED]
        for key in measured:
            pipe.memory_usage(key, samples=0)
        size = sum(one or 0 for one in pipe.execute()) * len(found) / len(measured)
        sizes[kind] = round(size / people, 1)
    return {kind: size for kind, size in sorted(sizes.items(), key=lambda one: -one[1]) if size}


def _synced(rig: Rig, rows: Path, people: int, number: int) -> dict[str, Any]:
    """Compare an export of all people, as `segrelay sync run` does, and drain what it publishes."""
    _export(rig, rows, number)
    begun = time.monotonic()
    tree, error = _run(rig, "sync", "run", _SYNC, "--json")
    if error:
        raise OperationsMustAct(error)
    seconds = time.monotonic() - begun
    rig.wait_until_empty(_LOAD_SECONDS)
    return {
        "seconds": round(seconds, 1),
        "members_per_second": round(people / seconds),
        "until_drained_seconds": round(time.monotonic() - begun, 1),
        "most_mb": round(tree.most_bytes / _MEGABYTE, 1),
    }


def _restart(rig: Rig) -> dict[str, Any]:
    """Kill Redis, and return how long it takes until it has its data again, and its files' size."""
    rig.stop_workers()
    data_dir = rig.settings.redis.data_dir
    size = sum(each.stat().st_size for each in data_dir.rglob("*") if each.is_file())
    keys = rig.client.dbsize()
    rig.kill_redis()
    begun = time.monotonic()
    found = embedded.ensure_running(data_dir, wait_seconds=_LOAD_SECONDS)
    seconds = time.monotonic() - begun
    with closing(connect(found.url)) as client:
        lost = keys - client.dbsize()
    return {
        "seconds": round(seconds, 1),
        "files_mb": round(size / _MEGABYTE),
        "keys": keys,
        "keys_lost": lost,
    }


@dataclass(slots=True)
class _Answers:
    """The seconds that `status --json` and the console's first page took to answer."""

    status: list[float] = field(default_factory=list)
    console: list[float] = field(default_factory=list)
    stopped: Event = field(default_factory=Event)

    def ask_status(self, rig: Rig) -> None:
        """Run `segrelay status --json` again and again."""
        while not self.stopped.wait(_STATUS_SECONDS):
            begun = time.monotonic()
            rig.command("status", "--json")
            self.status.append(time.monotonic() - begun)

    def ask_console(self, port: int) -> None:
        """Ask for the page Now again and again."""
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_START_SECONDS) as client:
            while not self.stopped.wait(_LOOK_SECONDS):
                begun = time.monotonic()
                client.get("/").raise_for_status()
                self.console.append(time.monotonic() - begun)

    def summary(self) -> dict[str, Any]:
        """Return the percentiles in ms."""
        return {
            name: {"asked": len(found), **_percentiles(found)}
            for name, found in (("status", self.status), ("console", self.console))
        }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    percentiles = statistics.quantiles(seconds, n=20, method="inclusive")
    return {
        "p50_ms": round(1_000 * statistics.median(seconds)),
        "p95_ms": round(1_000 * percentiles[18]),
        "most_ms": round(1_000 * max(seconds)),
    }


@contextmanager
def _asking(rig: Rig, port: int) -> Iterator[_Answers]:
    """Ask for the status and for the console's first page for the duration of the block."""
    wait_until(lambda: _answers(port), _START_SECONDS, "The console does not start.")
    answers = _Answers()
    threads = [
        Thread(target=answers.ask_status, args=(rig,)),
        Thread(target=answers.ask_console, args=(port,)),
    ]
    for each in threads:
        each.start()
    try:
        yield answers
    finally:
        answers.stopped.set()
        for each in threads:
            each.join()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").is_success
    except httpx.HTTPError:
        return False

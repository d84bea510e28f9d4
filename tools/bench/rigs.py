"""A whole segrelay, or a Redis alone with its configuration, for a benchmark."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.ops.embedded import ensure_running, stop
from segrelay.sandbox.people import Happening
from segrelay.sandbox.people import payloads as invented
from segrelay.templates import SHIPPED_FOLDER
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import Settings, load_settings
from segrelay.worker.errors import OperationsMustAct
from tests.rig import Rig

DESTINATION: Final = """
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com"
rate = "25000/min"
"""
_TEMPLATES: Final = 'templates = "{folder}"\n'
_REMEMBERS: Final = '\n[delivery]\nledger_retention = "3650d"\n'
"""A retention of years: the events of benchmarks have a fixed day, which may be long ago."""


def audiences_of(triggers: int) -> list[str]:
    """Return the names of the audiences for a number of triggers; two triggers share one."""
    return [f"audience-{number:03}" for number in range(triggers // 2)]


@dataclass(frozen=True, slots=True)
class RedisAlone:
    """An embedded Redis and its configuration, for the duration of a benchmark.

    Args:
        folder: The folder with the configuration and Redis' files; removed afterwards.
    """

    folder: Path
    settings: Settings
    client: Redis


@contextmanager
def redis_alone(tables: str = "") -> Iterator[RedisAlone]:
    """Start an embedded Redis in a temporary folder, with a configuration that has these tables."""
    with tempfile.TemporaryDirectory(prefix="segrelay-bench-") as name:
        path = Path(name) / "segrelay.toml"
        text = _TEMPLATES.format(folder=SHIPPED_FOLDER) + tables + _REMEMBERS
        path.write_text(text, encoding="utf-8")
        settings = load_settings(path, environ={})
        data_dir = settings.redis.data_dir
        try:
            with closing(connect(ensure_running(data_dir).url)) as client:
                yield RedisAlone(path.parent, settings, client)
        finally:
            stop(data_dir)


def used_memory(client: Redis) -> int:
    """Return the bytes of memory that Redis uses."""
    found: Any = client.info("memory")
    return int(found["used_memory"])


def redis_seconds(client: Redis) -> float:
    """Return the processor time that Redis has used."""
    used: Any = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def processor_seconds_of(pid: int) -> float:
    """Return the processor time that a process has used; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_WORKERS: Final = 2
_PROCESSES: Final = 2
_START_SECONDS: Final = 60.0


@contextmanager
def bench_rig(**options: Any) -> Iterator[Rig]:
    """Run a rig with two triggers in a folder that is removed afterwards; see `Rig`."""
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
        Rig(Path(folder), **{"exit_events": False, **options}) as rig,
    ):
        yield rig


def start_workers(rig: Rig) -> None:
    """Start workers, and wait until all are ready.

    Raises:
        OperationsMustAct: One does not start.
    """
    first = len(rig.workers)
    for _ in range(_WORKERS):
        rig.start_worker(f"--concurrency={_PROCESSES}")
    rig.wait_until_ready(_START_SECONDS, since=first)


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write lines to a file, and flush it to the disk."""
    with path.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)
    flush_to_disk(path)


def flush_to_disk(path: Path) -> None:
    """Flush a file to the disk: else the kernel does it later, and Redis' writes wait for it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


FIRST_LIVE_PERSON: Final = 100_000_000
"""The number of the first live person; people of the backfill have smaller ones."""


def live_payload(person: int, audience: str, fields: int = 0) -> tuple[str, bytes]:
    """Return a person's email and the payload of an entrance now.

    It has no phone number: there are few invented ones, and people with the same are one person at
    Insider.
    """
    email, now_us = f"person{person}@example.com", time.time_ns() // 1_000
    [text] = invented([Happening(email, audience, is_exit=False, time_us=now_us)], fields=fields)
    payload = orjson.loads(text)
    payload["data"].pop("phone", None)
    return email, orjson.dumps(payload)


def send(rig: Rig, payloads: Iterable[bytes]) -> float:
    """Accept payloads with `segrelay send`, and return the seconds that it took."""
    source = rig.folder / "events.ndjson"
    write_lines(source, payloads)
    begun = time.monotonic()
    sent = rig.command("send", str(source), "--json", timeout=600)
    if sent.returncode:
        raise OperationsMustAct(sent.stderr.decode())
    return time.monotonic() - begun


def requests_of(rig: Rig) -> int:
    """Return the number of requests that the sandbox has received."""
    return int(rig.sandbox.get("summary")["requests"]["total"])

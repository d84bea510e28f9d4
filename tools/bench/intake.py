"""Benchmarks of intake: rows of a file, and webhooks, that are taken into Redis in a second."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson
import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import parquet

from segrelay.ops.embedded import free_port
from segrelay.ops.run.up import own_command
from segrelay.sandbox.people import AUDIENCES, happenings, invented_person, payloads
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.errors import OperationsMustAct
from tests.rig import trigger_pairs, wait_for_receiver
from tools.bench.rigs import (
    DESTINATION,
    RedisAlone,
    flush_to_disk,
    processor_seconds_of,
    redis_alone,
    redis_seconds,
    write_lines,
)

_PAYLOAD_BYTES: Final = 1_000
_FIELDS: Final = 30
_DIFFERENT_PEOPLE: Final = 5_000
"""The number of invented people; further rows have their fields, with an identity of their own."""
CONFIGURATION: Final = DESTINATION + trigger_pairs(AUDIENCES)
_COMMAND: Final = Path(sysconfig.get_path("scripts")) / "segrelay"
_TOP: Final = "[redis]\nhigh_water = 1_000_000_000\n"


def write_payloads(path: Path, events: int) -> None:
    """Write webhook payloads of 30 fields and 1 KB as JSON lines."""
    write_lines(path, payloads_of_people(events))


def payloads_of_people(events: int) -> Iterator[bytes]:
    """Yield webhook payloads of 30 fields and 1 KB, each about another person."""
    chance = Random(1)  # noqa: S311 - invented people
    happened = happenings(chance, events=min(events, _DIFFERENT_PEOPLE), people=_DIFFERENT_PEOPLE)
    made = list(payloads(happened, profile_bytes=_PAYLOAD_BYTES, fields=_FIELDS))
    emails = [f'"{each.email}"'.encode() for each in happened]
    for number in range(events):
        at = number % len(made)
        yield made[at].replace(emails[at], b'"person%d@example.com"' % number)


def people_rows(rows: int) -> Iterator[list[dict[str, Any]]]:
    """Yield profiles of 30 fields and 1 KB, some thousand at a time, each of another person."""
    made = []
    for number in range(min(rows, _DIFFERENT_PEOPLE)):
        row = invented_person(number)
        missing = _PAYLOAD_BYTES - len(orjson.dumps(row)) - len(',"last_pages":[]')
        made.append(row | {"last_pages": ["/p/" + "x" * 47] * (missing // 53)})
    for begin in range(0, rows, _DIFFERENT_PEOPLE):
        part = made[: rows - begin]
        for number, row in enumerate(part, begin):
            row["_id"], row["email"] = str(10**18 + number), f"person{number}@example.com"
        yield part


def write_rows(path: Path, rows: int) -> None:
    """Write profiles of 30 fields and 1 KB as JSON lines, or as Parquet with columns of its types.

    Birthdays are dates there, and the times of profiles are timestamps.
    """
    if path.suffix != ".parquet":
        write_lines(path, (orjson.dumps(row) for part in people_rows(rows) for row in part))
        return
    writer = None
    for part in people_rows(rows):
        table = _typed(pa.Table.from_pylist(part))
        writer = writer or parquet.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()
        flush_to_disk(path)


def _typed(table: Any) -> Any:
    types = {
        "birthday": pa.date32(),
        "created": pa.timestamp("us", "UTC"),
        "last_active": pa.timestamp("us", "UTC"),
    }
    for name, kind in types.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table.column(name).cast(kind))
    return table


def backfill(events: int, kind: str = "ndjson", partitions: int = 16) -> dict[str, Any]:
    """Measure `segrelay backfill start` for people of 30 fields, with all processes that it starts.

    Redis, on the same machine, writes each entry to its disk. Nothing is delivered meanwhile.
    """
    with redis_alone(f"{_TOP}partitions = {partitions}\n{CONFIGURATION}") as on:
        name = f"rows.{kind}"
        write_rows(on.folder / name, events)
        as_of = ("--audience", "vip", "--as-of", _yesterday())
        return _read(on, events, ["backfill", "start", name, *as_of, "--json"], "rows")


def send_payloads(events: int, partitions: int = 16) -> dict[str, Any]:
    """Measure `segrelay send` for payloads of 30 fields; nothing is delivered meanwhile."""
    with redis_alone(f"{_TOP}partitions = {partitions}\n{CONFIGURATION}") as on:
        write_payloads(on.folder / "events.ndjson", events)
        return _read(on, events, ["send", "events.ndjson", "--json"], "payloads")


def children_seconds() -> float:
    """Return the processor time of all processes of this one that have ended, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _yesterday() -> str:
    return (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(on: RedisAlone, rows: int, arguments: Sequence[str], counted: str) -> dict[str, Any]:
    redis_before = redis_seconds(on.client)
    begun = time.perf_counter()
    before = children_seconds()
    said = subprocess.check_output(
        [str(_COMMAND), *arguments], cwd=on.folder, stderr=subprocess.DEVNULL
    )
    seconds, reading = time.perf_counter() - begun, children_seconds() - before
    told = orjson.loads(said)
    in_redis = redis_seconds(on.client) - redis_before
    assert (told[counted], told["accepted"]) == (rows, rows), told
    return {
        counted: rows,
        "seconds": round(seconds, 1),
        f"{counted}_per_second": round(rows / seconds),
        "reading_cpu_us_a_row": round(1e6 * reading / rows, 1),
        "redis_cpu_us_a_row": round(1e6 * in_redis / rows, 1),
    }


SECRET: Final = "a-secret-of-nobody"  # noqa: S105 - of this run
RECEIVER: Final = """
[producer.webhook]
listen = "127.0.0.1:{port}"
secret = "{secret}"
"""
_CONNECTIONS: Final = 32
_LENGTH: Final = re.compile(rb"(?i)content-length: (\d+)")
_STOP_SECONDS: Final = 15.0


async def _send_all(port: int, requests: list[bytes]) -> tuple[list[float], int]:
    """Send requests over several connections, each after the answer to the one before.

    Returns:
        The seconds of each request, and how many were answered with something else than 200.
    """
    shared, seconds, refused = iter(requests), [], 0

    async def send() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in shared:
            sent_at = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(_LENGTH.findall(head)[0]))
            seconds.append(time.perf_counter() - sent_at)
            refused += not head.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(send() for _ in range(_CONNECTIONS)))
    return seconds, refused


def receive(events: int, array: int) -> dict[str, Any]:
    """Measure how many requests of `array` events one receiver takes; none is delivered.

    The load comes from this process: each connection sends a request as soon as the one before is
    answered.
    """
    made = list(payloads_of_people(events))
    parts = [made[at : at + array] for at in range(0, events, array)]
    bodies = [b"[%b]" % b",".join(part) if array > 1 else part[0] for part in parts]
    requests = [_request(body) for body in bodies]
    with _receiver() as (port, pid, client):
        before = processor_seconds_of(pid), redis_seconds(client)
        begun, cpu = time.perf_counter(), time.process_time()
        each, refused = asyncio.run(_send_all(port, requests))
        seconds, own = time.perf_counter() - begun, time.process_time() - cpu
        receiving = processor_seconds_of(pid) - before[0]
        in_redis = redis_seconds(client) - before[1]
    if refused:
        raise OperationsMustAct(f"The receiver answered {refused} requests with something else.")
    percentiles = statistics.quantiles(each, n=100)
    return {
        "events_a_request": array,
        "connections": _CONNECTIONS,
        "requests_per_second": round(len(requests) / seconds),
        "events_per_second": round(events / seconds),
        "p50_ms": round(1000 * percentiles[49], 1),
        "p99_ms": round(1000 * percentiles[98], 1),
        "receiver_cpu_us_an_event": round(1e6 * receiving / events, 1),
        "redis_cpu_us_an_event": round(1e6 * in_redis / events, 1),
        "share_of_the_load_itself": round(own / seconds, 2),
    }


def _request(body: bytes) -> bytes:
    head = (
        "POST /v1/lytics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-Segrelay-Secret: {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def _receiver() -> Iterator[tuple[int, int, Redis]]:
    """Run a receiver with a Redis of its own; yield its port, its process id and the Redis."""
    port = free_port()
    with redis_alone(RECEIVER.format(port=port, secret=SECRET) + CONFIGURATION) as on:
        process = subprocess.Popen(
            own_command("serve"),
            env={**os.environ, "SEGRELAY_CONFIG": str(on.settings.source)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_receiver(port, process)
            yield port, process.pid, on.client
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)

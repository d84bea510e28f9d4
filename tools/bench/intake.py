"""Benchmarks of intake: rows of a file, and webhooks, that are taken into Redis in a second."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson

from segrelay.ops.demo.rig import trigger_pairs, wait_for_receiver
from segrelay.ops.embedded.lifecycle import free_port
from segrelay.ops.run.up import own_command
from segrelay.worker.errors import OperationsMustAct
from tools.bench.rigs import (
    DESTINATION,
    RedisAlone,
    processor_seconds_of,
    redis_alone,
    redis_seconds,
)

_PEOPLE: Final = 30_000
_PAYLOAD_BYTES: Final = 1_024
CONFIGURATION: Final = DESTINATION + trigger_pairs(["vip"])


def payload(number: int, chance: Random, audiences: Sequence[str]) -> bytes:
    """Return a wrapped payload of 1 KB about an invented person."""
    direction = chance.choice(("enter", "exit"))
    person = chance.randrange(_PEOPLE)
    at = chance.randrange(len(audiences))
    stamp = f"2026-11-01T10:{number // 60 % 60:02}:{number % 60:02}.{number % 1_000_000:06}Z"
    audience = {"id": f"{at:032}", "slug": audiences[at], "event": direction, direction: stamp}
    data = {"email": f"person{person}@example.com", "score": person, "segment_events": [audience]}
    body = {"id": str(person), "data": data, "meta": {"object": "user", "timestamp": stamp}}
    missing = _PAYLOAD_BYTES - len(orjson.dumps(body))
    for extra in range(missing // 40):
        data[f"field_{extra:02}"] = f"value {chance.randrange(10**15):020}"
    return orjson.dumps(body)


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
        members = list(with_descendants(self.pid))
        self.most_bytes = max(self.most_bytes, sum(map(bytes_of, members)))
        for pid in members:
            self.seconds[pid] = max(self.seconds.get(pid, 0.0), processor_seconds_of(pid))


def with_descendants(pid: int) -> Iterator[int]:
    """Yield the ids of a process and of all that it and its children have started."""
    yield pid
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text("utf-8").split():
                yield from with_descendants(int(child))


def bytes_of(pid: int) -> int:
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


SECRET: Final = "a-secret-of-nobody"  # noqa: S105 - of this run
RECEIVER: Final = """
[producer.webhook]
listen = "127.0.0.1:{port}"
secret = "{secret}"
"""
_AUDIENCES: Final = ("vip",)
_CONNECTIONS: Final = 32
_STOP_SECONDS: Final = 15.0


class Connection(asyncio.Protocol):
    """An HTTP connection that sends each request after the answer to the one before."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self.seconds: list[float] = []
        self.refused = 0
        self._requests = requests
        self._done = done
        self._sent_at = 0.0
        self._answer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        """Add to the answer; it is complete at the end of the JSON object in its body."""
        self._answer += data
        if not self._answer.endswith(b"}"):
            return
        self.seconds.append(time.perf_counter() - self._sent_at)
        self.refused += not self._answer.startswith(b"HTTP/1.1 200")
        self._answer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the benchmark if requests are left."""
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the receiver closed a connection"))

    def _next(self) -> None:
        assert self._transport is not None
        request = next(self._requests, None)
        if request is None:
            self._done.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)


async def _send_all(port: int, requests: list[bytes]) -> list[Connection]:
    """Send requests over several connections at once."""
    loop = asyncio.get_running_loop()
    shared = iter(requests)
    ends = [loop.create_future() for _ in range(_CONNECTIONS)]
    made = [
        await loop.create_connection(
            lambda end=end: Connection(shared, end),  # type: ignore[misc] # a default
            "127.0.0.1",
            port,
        )
        for end in ends
    ]
    await asyncio.gather(*ends)
    return [protocol for _, protocol in made]


def receive(events: int, array: int) -> dict[str, Any]:
    """Measure how many requests of `array` events one receiver takes; none is delivered.

    The load comes from this process: each connection sends a request as soon as the one before is
    answered.
    """
    chance = Random(1)  # noqa: S311 - invented people
    made = [payload(number, chance, _AUDIENCES) for number in range(events)]
    parts = [made[at : at + array] for at in range(0, events, array)]
    bodies = [b"[%b]" % b",".join(part) if array > 1 else part[0] for part in parts]
    requests = [_request(body) for body in bodies]
    with _receiver() as port:
        begun, cpu = time.perf_counter(), time.process_time()
        ended = asyncio.run(_send_all(port, requests))
        seconds, own = time.perf_counter() - begun, time.process_time() - cpu
    refused = sum(connection.refused for connection in ended)
    if refused:
        raise OperationsMustAct(f"The receiver answered {refused} requests with something else.")
    times = [1000 * each for connection in ended for each in connection.seconds]
    percentiles = statistics.quantiles(times, n=100)
    return {
        "events_a_request": array,
        "connections": _CONNECTIONS,
        "requests_per_second": round(len(requests) / seconds),
        "events_per_second": round(events / seconds),
        "p50_ms": round(percentiles[49], 1),
        "p99_ms": round(percentiles[98], 1),
        "share_of_the_load_itself": round(own / seconds, 2),
    }


def _request(body: bytes) -> bytes:
    head = (
        "POST /v1/lytics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-Segrelay-Secret: {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def _receiver() -> Iterator[int]:
    """Run a receiver with a Redis of its own, and yield its port."""
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
            yield port
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)

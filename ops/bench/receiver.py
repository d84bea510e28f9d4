"""Requests a second that the receiver takes, and from request to Insider's answer.

`python -m ops.bench.webhook`. One receiver process, first with one event a request, then with
arrays of 100. The load comes from this process: each connection sends a request as soon as the one
before is answered. Nothing is delivered meanwhile. Then, with a worker and a sandbox, one event at
a time: how long it takes from the request until what Insider answered is settled, first with
nothing else to do, then while `segrelay backfill` reads a file and the workers deliver it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from ops.bench.backfill import write_rows
from ops.bench.frame.ground import ground
from ops.bench.latency import latencies, summary
from ops.bench.publish import CONFIGURATION, payload
from ops.invented import happenings, payloads
from ops.rig import Rig, free_port, wait_for_receiver
from ops.supervisor import own_command
from ops.terminal.console import print_json
from worker.errors import OperationsMustAct

_SECRET: Final = "a-secret-of-nobody"  # noqa: S105 - of this run
_ARRAY: Final = 100
_AUDIENCES: Final = ("vip",)
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.1
_QUIET_SECONDS: Final = 1.0
_RECEIVER: Final = """
[producer.webhook]
listen = "127.0.0.1:{port}"
secret = "{secret}"
"""
_BACKFILL: Final = ("--audience", "vip", "--as-of", "2026-11-01T00:00:00Z")


class Connection(asyncio.Protocol):
    """One connection that sends its requests, each after the answer to the one before."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self.seconds: list[float] = []
        self.refused = 0
        self._requests = requests
        self._done = done
        self._sent_at = 0.0
        self._answer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer; its end is where the JSON object of its body ends."""
        self._answer += data
        if not self._answer.endswith(b"}"):
            return
        self.seconds.append(time.perf_counter() - self._sent_at)
        self.refused += not self._answer.startswith(b"HTTP/1.1 200")
        self._answer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, too early if requests are left."""
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


async def send_all(port: int, requests: list[bytes], connections: int) -> list[Connection]:
    """Send requests over so many connections at once."""
    loop = asyncio.get_running_loop()
    shared = iter(requests)
    ends = [loop.create_future() for _ in range(connections)]
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


def measure(port: int, *, requests: int, array: int, connections: int) -> dict[str, Any]:
    """Return what one size of requests gives."""
    chance = random.Random(1)  # noqa: S311 - invented people
    bodies = (
        b"[%b]" % b",".join(payload(number * array + at, chance, _AUDIENCES) for at in range(array))
        if array > 1
        else payload(number, chance, _AUDIENCES)
        for number in range(requests)
    )
    whole = [_request(body) for body in bodies]
    begun, cpu = time.perf_counter(), time.process_time()
    ended = asyncio.run(send_all(port, whole, connections))
    seconds, own = time.perf_counter() - begun, time.process_time() - cpu
    times = sorted(1000 * each for connection in ended for each in connection.seconds)
    refused = sum(connection.refused for connection in ended)
    if refused:
        raise OperationsMustAct(f"The receiver answered {refused} requests with something else.")
    percentiles = statistics.quantiles(times, n=100)
    return {
        "events_a_request": array,
        "connections": connections,
        "requests_per_second": round(requests / seconds),
        "events_per_second": round(requests * array / seconds),
        "p50_ms": round(percentiles[49], 1),
        "p99_ms": round(percentiles[98], 1),
        "share_of_the_load_itself": round(own / seconds, 2),
    }


def _request(body: bytes) -> bytes:
    head = (
        "POST /v1/lytics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-Segrelay-Secret: {_SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def receiver() -> Iterator[int]:
    """Run a receiver with a Redis of its own; yields its port."""
    port = free_port()
    with ground(_RECEIVER.format(port=port, secret=_SECRET) + CONFIGURATION) as on:
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


def delivered(events: int, rows: int, *, pause_seconds: float) -> dict[str, Any]:
    """Return from request to Insider's answer, alone and beside a backfill of so many rows."""
    chance = random.Random(2)  # noqa: S311 - invented people
    live = list(payloads(happenings(chance, events=2 * events, people=100 * events)))
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as name,
        Rig(Path(name), exit_events=False, more=_RECEIVER.format(port=port, secret=_SECRET)) as rig,
        httpx.Client(headers={"X-Segrelay-Secret": _SECRET}) as client,
    ):
        rig.start_worker()
        wait_for_receiver(port, rig.start_beside("serve"))
        rig.wait_until_ready()

        def post(payload: bytes) -> None:
            client.post(f"http://127.0.0.1:{port}/v1/lytics", content=payload).raise_for_status()

        time.sleep(_QUIET_SECONDS)
        report = {"idle": summary(latencies(rig, post, live[:events], pause_seconds))}
        if rows:
            source = Path(name) / "rows.ndjson"
            write_rows(source, rows)
            rig.start_beside("backfill", "start", str(source), *_BACKFILL)
            _await_backfill(rig)
            beside = latencies(rig, post, live[events:], pause_seconds, while_waiting=True)
            report["beside_a_backfill"] = {"left_to_deliver": rig.waiting(), **summary(beside)}
    return report


def _await_backfill(rig: Rig) -> None:
    gives_up_at = time.monotonic() + _START_SECONDS
    while not rig.waiting():
        if time.monotonic() > gives_up_at:
            raise OperationsMustAct("The backfill does not start.")
        time.sleep(_LOOK_SECONDS)


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="with one event each")
    parser.add_argument("--arrays", type=int, default=1_000, help="requests with 100 events each")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--events", type=int, default=300, help="one at a time; 0 = none")
    parser.add_argument("--backfill", type=int, default=1_000_000, help="rows; 0 = only idle")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two events")
    given = parser.parse_args()
    report: dict[str, Any] = {"received": []}
    with receiver() as port:
        for requests, array in ((given.requests, 1), (given.arrays, _ARRAY)):
            if requests:
                found = measure(port, requests=requests, array=array, connections=given.connections)
                report["received"].append(found)
    if given.events:
        report["delivered"] = delivered(given.events, given.backfill, pause_seconds=given.pause)
    print_json(report)


if __name__ == "__main__":
    main()

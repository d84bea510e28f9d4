"""A benchmark of the receiver: how many webhooks it takes a second."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final

from segrelay.ops.demo.rig import wait_for_receiver
from segrelay.ops.embedded.lifecycle import free_port
from segrelay.ops.run.up import own_command
from segrelay.worker.errors import OperationsMustAct
from tools.bench.frame.redis_alone import redis_alone
from tools.bench.publish import CONFIGURATION, payload

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

"""A request that would cost much: refused or taken in bounded memory, while others are answered."""

import gzip
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest

from tests.journeys.play import REMEMBERS_ALL, SHORT, Rig, start_worker
from tests.journeys.receiver import Receiver
from tests.nightly import amount
from tests.waiting import allowed

SECRET = {"x-segrelay-secret": "a-secret-of-nobody"}
GZIP = SECRET | {"content-encoding": "gzip"}
NEIGHBOUR_SECONDS = 3.0
MEMORY_BYTES = 400_000_000
MIB = 1024 * 1024


def event(number: int, **fields: object) -> bytes:
    entry = {"slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}
    data = {"email": f"p{number}@example.com", "segment_events": [entry]}
    return orjson.dumps({"id": str(number), "data": {**data, **fields}})


class Relay:
    """A rig with a worker and a receiver."""

    def __init__(self, rig: Rig, receiver: Receiver) -> None:
        self.rig = rig
        self.url = f"{receiver.url}/v1/lytics"
        start_worker(rig, "--concurrency=2")
        self.process = receiver.start(rig)

    def post(self, body: bytes, headers: dict[str, str] = SECRET) -> httpx.Response:
        return httpx.post(self.url, content=body, headers=headers, timeout=180)

    def most_memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def computed_seconds(self) -> float:
        """Return the processor time of the receiver so far."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    receiver = Receiver("a-secret-of-nobody")
    with Rig(
        tmp_path_factory.mktemp("limits"),
        delivery_lines=f"{SHORT}\n{REMEMBERS_ALL}",
        more=receiver.table(),
    ) as rig:
        yield Relay(rig, receiver)


@contextmanager
def a_neighbour(relay: Relay) -> Iterator[list[float]]:
    """Post single payloads all the while; yields how long each was kept from its answer.

    What counts is how long the receiver computed meanwhile: beside other tests all takes longer.
    """
    seconds: list[float] = []
    ended = threading.Event()

    def send() -> None:
        while not seconds or not ended.wait(0.05):
            begun, computed = time.monotonic(), relay.computed_seconds()
            assert relay.post(event(1)).status_code == 200
            waited = time.monotonic() - begun
            seconds.append(min(waited, relay.computed_seconds() - computed))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield seconds
    finally:
        ended.set()
        thread.join()


def rows(row: bytes, size: int) -> bytes:
    return b"[" + (row + b",") * (size // (len(row) + 1) - 1) + row + b"]"


def many_events(profile_bytes: int, events: int) -> bytes:
    entry = {"slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}
    data = {"email": "p@example.com", "a": "x" * profile_bytes, "segment_events": [entry] * events}
    return orjson.dumps({"data": data})


COSTLY = (
    pytest.param(lambda: rows(b"{}", 60_000_000), 413, id="60 MB of objects"),
    pytest.param(
        lambda: b'{"data": {"a": %b}}' % rows(b"{}", 15 * MIB), 413, id="one with objects"
    ),
    pytest.param(
        lambda: rows(b'{"a": %b}' % rows(b"{}", MIB), 15 * MIB), 413, id="some with objects"
    ),
    pytest.param(lambda: b"[" * (15 * MIB), 413, id="deep"),
    pytest.param(lambda: event(2, a="\U0001f600" * (3 * MIB)), 200, id="a huge text of emoji"),
    pytest.param(lambda: many_events(MIB, 100_000), 200, id="a profile times its events"),
    pytest.param(lambda: rows(many_events(20_000, 300), 2 * MIB), 200, id="many of these"),
)
"""Bodies; every fifth of them is posted by day."""


@pytest.mark.parametrize(("text_of", "status"), amount(COSTLY[::5], nightly=COSTLY))
def test_a_body_that_would_cost_much_stops_no_neighbour(
    relay: Relay, text_of: Callable[[], bytes], status: int
) -> None:
    body = gzip.compress(text_of(), 1)

    with a_neighbour(relay) as seconds:
        answer = relay.post(body, GZIP)

    assert answer.status_code == status, answer.text
    assert seconds
    assert max(seconds) < allowed(NEIGHBOUR_SECONDS / 3)
    assert relay.most_memory() < MEMORY_BYTES


def test_many_of_them_at_once_are_bounded_as_well(relay: Relay) -> None:
    bodies = [rows(b"{}", 60_000_000), rows(b"{}", 29_000), rows(b'""', 15 * MIB)]
    sent = [gzip.compress(body, 1) for body in bodies] * 4
    answers: list[int] = []
    threads = [
        threading.Thread(
            target=lambda body=body: answers.append(relay.post(body, GZIP).status_code)
        )
        for body in sent
    ]

    with a_neighbour(relay) as seconds:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert set(answers) <= {200, 413, 503}
    assert max(seconds) < allowed(NEIGHBOUR_SECONDS / 3)
    assert relay.most_memory() < MEMORY_BYTES

"""The receiver's connections, over a wire in memory: what is sent when, and in how many pieces."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from segrelay.producer.webhook.server import (
    HEADER_SECONDS,
    PLAIN,
    PromptProtocol,
)

POST = b"POST /v1/lytics HTTP/1.1\r\nHost: relay.example.com\r\nContent-Length: 2\r\n"


class Wire(asyncio.Transport):
    """A transport that remembers what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        """Nothing is read by itself."""

    def resume_reading(self) -> None:
        """Nothing is read by itself."""


async def answer(_scope: Any, receive: Any, send: Any) -> None:
    """Answer a request with its body."""
    body = (await receive()).get("body", b"")
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


async def talk(*pieces: bytes, then_waits: float = 0.0, is_stopping: bool = False) -> Wire:
    """Send the pieces of a request one after the other, with time to answer after each."""
    config = uvicorn.Config(answer, lifespan="off", timeout_keep_alive=60, **PLAIN)
    config.is_stopping = is_stopping  # type: ignore[attr-defined]
    config.load()
    protocol = PromptProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    wire = Wire()
    protocol.connection_made(wire)
    for piece in pieces:
        protocol.data_received(piece)
        for _ in range(100):
            await asyncio.sleep(0)
    if then_waits:
        asyncio.get_running_loop().skipped += then_waits  # type: ignore[attr-defined]
        for _ in range(3):
            await asyncio.sleep(0)
    protocol.connection_lost(ConnectionResetError())  # so it does not close the wire itself
    return wire


@pytest.mark.parametrize(
    "pieces", [(POST + b"\r\n[]", POST + b"\r\n{}"), (POST + b"\r\n[]" + POST + b"\r\n{}",)]
)
def test_each_of_several_requests_of_a_connection_has_its_own_answer(pieces) -> None:
    wire = asyncio.run(talk(*pieces))

    sent = b"".join(wire.writes)
    assert sent.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert sent.index(b"\r\n\r\n[]") < sent.index(b"\r\n\r\n{}")


def test_who_waits_to_be_asked_for_the_body_is_asked_at_once() -> None:
    wire = asyncio.run(talk(POST + b"Expect: 100-continue\r\n\r\n", b"{}"))

    assert wire.writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"".join(wire.writes).endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize("before", [(), (POST + b"\r\n{}",)], ids=["the first", "a later one"])
@pytest.mark.parametrize("sent", [POST, POST + b"\r\n"], ids=["in part", "whole"])
def test_headers_that_do_not_come_end_the_connection(before, sent) -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        wire = runner.run(talk(*before, sent, then_waits=HEADER_SECONDS + 1))

    assert wire.is_closed == (sent is POST)


@pytest.mark.parametrize(
    ("request_", "is_stopping"),
    [
        pytest.param(POST + b"\r\n{}", True, id="the server stops"),
        pytest.param(POST + b"Connection: close\r\n\r\n{}", False, id="the client wants it"),
    ],
)
def test_the_last_answer_of_a_connection_closes_it(request_, is_stopping) -> None:
    wire = asyncio.run(talk(request_, is_stopping=is_stopping))

    assert b"\r\nconnection: close\r\n" in b"".join(wire.writes)
    assert wire.is_closed

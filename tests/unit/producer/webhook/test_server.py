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
    Respond,
    WholeRequests,
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


class Taking(WholeRequests):
    """Takes requests with a body, and answers them with it once the event loop has its turn."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def take(self, scope: Any, body: bytes, respond: Respond) -> bool:
        if scope["method"] != "POST":
            return False
        self.taken.append(body)
        headers = [(b"content-length", b"%d" % len(body))]
        asyncio.get_running_loop().call_soon(respond, 200, headers, body)
        return True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(scope, receive, send)


async def talk(
    *pieces: bytes, then_waits: float = 0.0, app: Any = answer, is_stopping: bool = False
) -> Wire:
    """Send the pieces of a request one after the other, with time to answer after each."""
    config = uvicorn.Config(app, lifespan="off", timeout_keep_alive=60, **PLAIN)
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


def test_a_request_that_comes_whole_needs_no_task() -> None:
    app = Taking()

    wire = asyncio.run(talk(POST + b"\r\n[]", POST + b"\r\n{}", app=app))

    assert app.taken == [b"[]", b"{}"]
    assert wire.writes == [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + body for body in app.taken
    ]
    assert not wire.is_closed


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((POST + b"\r\n{", b"}"), id="in the middle of the body"),
        pytest.param((POST.replace(b"POST", b"PUT") + b"\r\n{}",), id="not taken"),
    ],
)
def test_a_request_that_is_not_taken_whole_gets_a_task(pieces) -> None:
    app = Taking()

    wire = asyncio.run(talk(*pieces, app=app))

    assert app.taken == []
    assert b"".join(wire.writes).startswith(b"HTTP/1.1 200 OK\r\n")


def test_whole_requests_that_come_in_one_piece_are_taken_one_after_the_other() -> None:
    app = Taking()

    wire = asyncio.run(talk((POST + b"\r\n[]" + POST + b"\r\n{}") * 40, app=app))

    assert app.taken == [b"[]", b"{}"] * 40
    assert [each[-2:] for each in wire.writes] == app.taken


@pytest.mark.parametrize(
    ("request_", "is_stopping"),
    [
        pytest.param(POST + b"\r\n{}", True, id="the server stops"),
        pytest.param(POST + b"Connection: close\r\n\r\n{}", False, id="the client wants it"),
    ],
)
def test_the_last_answer_of_a_connection_closes_it(request_, is_stopping) -> None:
    wire = asyncio.run(talk(request_, app=Taking(), is_stopping=is_stopping))

    (whole,) = wire.writes
    assert whole.endswith(b"\r\nconnection: close\r\n\r\n{}")
    assert wire.is_closed


def test_a_client_that_has_gone_gets_no_answer() -> None:
    app = Taking()

    async def play() -> Wire:
        config = uvicorn.Config(app, lifespan="off", **PLAIN)
        config.load()
        protocol = PromptProtocol(config, ServerState(), {}, asyncio.get_running_loop())
        wire = Wire()
        protocol.connection_made(wire)
        protocol.data_received(POST + b"\r\n{}")
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        return wire

    assert asyncio.run(play()).writes == []
    assert app.taken == [b"{}"]

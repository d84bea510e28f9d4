"""A server that behaves as it is told, and a sender that sends to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from segrelay.worker.adapters.sender import HttpSender
from segrelay.worker.destinations.api import Answer, NoAnswer, OutgoingRequest
from tests.waiting import allowed

PATH = "/api/user/v1/upsert"
SECRET = "very-secret"
BODY = b'{"users":[{"identifiers":{"email":"ann@example.com"}}]}'

T = TypeVar("T")
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def run(test: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(test, allowed(20)))


@contextlib.asynccontextmanager
async def listening(behave: Talk, **options: Any) -> AsyncIterator[int]:
    """Serve connections with a behaviour each; yield the port."""
    talks: set[asyncio.Task[None] | None] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        try:
            await behave(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            # What is written already still goes out where the end is orderly.
            writer.close() if writer.is_closing() else writer.transport.abort()

    accepting = await asyncio.start_server(talk, "127.0.0.1", 0, **options)
    try:
        yield accepting.sockets[0].getsockname()[1]
    finally:
        accepting.close()
        for task in filter(None, talks):
            task.cancel()
        await asyncio.gather(*filter(None, talks))
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def server(behave: Behaviour, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve whole requests to a behaviour, one after another on each connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            length = int((*head.lower().split(b"content-length: "), b"0")[1].split(b"\r\n")[0])
            await behave(head + await reader.readexactly(length), writer)
            await writer.drain()

    async with listening(talk, ssl=context) as port:
        yield f"http{'s' if context else ''}://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def sending(behave: Behaviour) -> AsyncIterator[tuple[HttpSender, str]]:
    sender = HttpSender(connections=2, ipv4_only=True)
    async with server(behave) as base_url:
        try:
            yield sender, base_url
        finally:
            await sender.close()


def request_to(base_url: str, path: str = PATH, **fields: Any) -> OutgoingRequest:
    given = {"headers": {"X-REQUEST-TOKEN": SECRET}, "params": {}, "body": BODY, **fields}
    return OutgoingRequest(base_url + path, **given)


def sent(
    behave: Behaviour, seconds: float = 15, path: str = PATH, **fields: Any
) -> Answer | NoAnswer:
    """Send one request to a server that behaves so, and return what came of it."""

    async def send() -> Answer | NoAnswer:
        async with sending(behave) as (sender, url):
            return await sender.send(request_to(url, path, **fields), seconds)

    return run(send())


def response(status: int = 200, body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answer(_request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(response(200, b'{"data":{}}'))


async def hang_up(_request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def say_nothing(_request: bytes, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


def drip(status: int) -> Behaviour:
    async def behave(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(status, b"x" * 1_000)[:-990])
        for _ in range(990):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    return behave


def cut_in_the_body(status: int) -> Behaviour:
    async def behave(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(status, b"x" * 100)[:-50])
        writer.close()

    return behave


async def answer_without_end(_request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        await writer.drain()


async def answer_nonsense(_request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"this is not HTTP\r\n\r\n")
    writer.close()


async def reset(_request: bytes, writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


async def redirect(_request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(response(302, b"", Location="/api/user/v1/delete"))

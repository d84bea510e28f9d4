"""The sender against a real server on loopback that behaves in every bad way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.fakes.fake_sender import FakeSender
from worker.adapters.sender import MOST_ANSWER_BYTES, HttpSender, resolved_retry_after
from worker.destinations.api import Answer
from worker.destinations.sending import NoAnswer, OutgoingRequest, Sender, Silence
from worker.errors import ConfigurationInvalid

PATH = "/api/user/v1/upsert"
SECRET = "very-secret"
BODY = b'{"users":[{"identifiers":{"email":"ann@example.com"}}]}'

Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


@contextlib.asynccontextmanager
async def server(behave: Behaviour) -> AsyncIterator[str]:
    """Serve whole requests to a behaviour, one after another on each connection."""
    talks: set[asyncio.Task[None] | None] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int((*head.lower().split(b"content-length: "), b"0")[1].split(b"\r\n")[0])
                await behave(head + await reader.readexactly(length), writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            # What is written already still goes out where the end is orderly.
            writer.close() if writer.is_closing() else writer.transport.abort()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for task in filter(None, talks):
            task.cancel()
        await asyncio.gather(*filter(None, talks))
        await asyncio.sleep(0)


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


def test_a_request_arrives_whole_and_its_answer_comes_back() -> None:
    seen: list[bytes] = []

    async def remember(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        writer.write(response(429, b'{"error":"slow"}', Retry_After="7"))

    async def test() -> None:
        async with sending(remember) as (sender, url):
            outgoing = request_to(url, "/in?a=1", params={"key": "k&1"}, api="http")
            assert await sender.send(outgoing, 5) == Answer(429, b'{"error":"slow"}', "7")

    run(test())

    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert body == BODY
    assert head.startswith(b"POST /in?a=1&key=k%261 HTTP/1.1\r\n")
    assert b"X-REQUEST-TOKEN: very-secret" in head
    assert b"Content-Type: application/json" in head
    assert b"Accept-Encoding: identity" in head


def test_connections_are_kept() -> None:
    peers: set[Any] = set()

    async def remember(request: bytes, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        await answer(request, writer)

    async def test() -> None:
        async with sending(remember) as (sender, url):
            for _ in range(5):
                assert isinstance(await sender.send(request_to(url), 5), Answer)

    run(test())

    assert len(peers) == 1


@pytest.mark.parametrize("behave", [answer, hang_up, say_nothing, drip(200), drip(400)])
def test_nothing_of_a_request_is_left_to_the_garbage_collector(behave: Behaviour) -> None:
    left: list[object] = []

    async def test() -> None:
        async with sending(behave) as (sender, url):
            await sender.send(request_to(url), 0.3)
            left.extend(each for each in gc.get_objects() if isinstance(each, httpx.Request))

    gc.collect()
    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()

    assert not left


@pytest.mark.parametrize(
    ("behave", "silence"),
    [
        (hang_up, Silence.CUT),
        (say_nothing, Silence.DEADLINE),
        (answer_nonsense, Silence.CUT),
        (cut_in_the_body(200), Silence.CUT),
        (drip(200), Silence.DEADLINE),
    ],
)
def test_what_left_and_was_not_answered_is_possibly_applied(
    behave: Behaviour, silence: Silence
) -> None:
    async def test() -> None:
        async with sending(behave) as (sender, url):
            result = await sender.send(request_to(url), 0.3)
            assert result == NoAnswer(silence, possibly_applied=True)

    run(test())


@pytest.mark.parametrize("behave", [drip(400), cut_in_the_body(400)])
def test_a_status_other_than_success_tells_without_its_body(behave: Behaviour) -> None:
    async def test() -> None:
        async with sending(behave) as (sender, url):
            result = await sender.send(request_to(url), 0.3)
            assert isinstance(result, Answer)
            assert (result.status, result.truncated) == (400, True)

    run(test())


def test_an_endless_answer_is_read_to_a_limit() -> None:
    async def test() -> None:
        async with sending(answer_without_end) as (sender, url):
            result = await sender.send(request_to(url), 5)
            assert isinstance(result, Answer)
            assert result.truncated
            assert len(result.body) == MOST_ANSWER_BYTES

    run(test())


def test_a_redirect_is_not_followed() -> None:
    async def redirect(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(302, b"", Location="/api/user/v1/delete"))

    async def test() -> None:
        async with sending(redirect) as (sender, url):
            result = await sender.send(request_to(url), 5)
            assert isinstance(result, Answer)
            assert result.status == 302

    run(test())


def test_what_never_left_is_surely_not_applied() -> None:
    async def test() -> None:
        async with server(answer) as url:
            pass
        sender = HttpSender()
        result = await sender.send(request_to(url), 5)
        assert result == NoAnswer(Silence.UNREACHABLE, possibly_applied=False)
        await sender.close()

    run(test())


def test_a_request_that_waits_for_a_connection_until_its_deadline_never_left() -> None:
    async def test() -> None:
        async with sending(say_nothing) as (sender, url):
            results = await asyncio.gather(*(sender.send(request_to(url), 0.3) for _ in range(3)))
            assert sorted(result.possibly_applied for result in results) == [False, True, True]

    run(test())


def test_an_idle_connection_that_the_server_closes_hurts_nobody_who_sends_later() -> None:
    async def answer_and_close(request: bytes, writer: asyncio.StreamWriter) -> None:
        await answer(request, writer)
        writer.close()

    async def test() -> None:
        async with sending(answer_and_close) as (sender, url):
            for _ in range(5):
                assert isinstance(await sender.send(request_to(url), 5), Answer)
                await asyncio.sleep(0.02)

    run(test())


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": {"X-REQUEST-TOKEN": f"{SECRET}\n"}},
        {"headers": {"X-REQUEST-TOKEN": f"{SECRET}é"}},
        {"headers": {"X REQUEST": SECRET}},
    ],
)
def test_credentials_that_http_cannot_carry_are_named_without_showing_them(
    fields: dict[str, Any],
) -> None:
    async def test() -> None:
        async with sending(answer) as (sender, url):
            with pytest.raises(ConfigurationInvalid) as caught:
                await sender.send(request_to(url, **fields), 5)
            assert SECRET not in f"{caught.value!r}{caught.value.__cause__!r}"

    run(test())


def test_a_request_shows_neither_credentials_nor_profiles() -> None:
    shown = repr(request_to("https://example.com", params={"key": SECRET}))

    assert SECRET not in shown
    assert "ann@" not in shown


async def _answer_in_memory(_request: OutgoingRequest) -> Answer:
    return Answer(200, b'{"data":{}}')


async def _never_in_memory(_request: OutgoingRequest) -> Answer:
    await asyncio.sleep(30)
    raise AssertionError


@contextlib.asynccontextmanager
async def a_sender(kind: str, *, answers: bool) -> AsyncIterator[tuple[Sender, str]]:
    if kind == "fake":
        yield FakeSender(_answer_in_memory if answers else _never_in_memory), "https://example.com"
        return
    async with sending(answer if answers else say_nothing) as pair:
        yield pair


@pytest.mark.parametrize("kind", ["http", "fake"])
def test_every_sender_gives_back_the_answer(kind: str) -> None:
    async def test() -> None:
        async with a_sender(kind, answers=True) as (sender, url):
            assert await sender.send(request_to(url), 5) == Answer(200, b'{"data":{}}')
            await sender.close()

    run(test())


@pytest.mark.parametrize("kind", ["http", "fake"])
def test_every_sender_keeps_the_deadline(kind: str) -> None:
    async def test() -> None:
        async with a_sender(kind, answers=False) as (sender, url):
            result = await sender.send(request_to(url), 0.1)
            assert result == NoAnswer(Silence.DEADLINE, possibly_applied=True)

    run(test())


@pytest.mark.parametrize("kind", ["http", "fake"])
def test_every_sender_asks_for_the_permit_at_the_last_moment(kind: str) -> None:
    async def test() -> None:
        asked: list[int] = []

        async def permit() -> bool:
            asked.append(1)
            return False

        async with a_sender(kind, answers=True) as (sender, url):
            result = await sender.send(request_to(url), 5, permit)
            assert result == NoAnswer(Silence.WITHHELD, possibly_applied=False)
            assert isinstance(result, NoAnswer)
            assert result.is_ours
            assert asked == [1]
            assert await sender.send(request_to(url), 5) == Answer(200, b'{"data":{}}')

    run(test())


def test_without_the_permit_no_body_is_written() -> None:
    """A process may stand still between the header and the body."""
    seen: list[bytes] = []
    answers = iter([True, False])

    async def remember(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        await answer(request, writer)

    async def permit() -> bool:
        return next(answers)

    async def test() -> None:
        async with sending(remember) as (sender, url):
            result = await sender.send(request_to(url), 5, permit)
            await asyncio.sleep(0.1)
            assert result == NoAnswer(Silence.WITHHELD, possibly_applied=False)
            assert seen == []

    run(test())


@pytest.mark.parametrize("kind", ["http", "fake"])
def test_every_sender_can_be_cut(kind: str) -> None:
    async def test() -> None:
        async with a_sender(kind, answers=False) as (sender, url):
            under_way = asyncio.ensure_future(sender.send(request_to(url), 20))
            await asyncio.sleep(0.1)
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way

    run(test())


@pytest.mark.parametrize("kind", ["http", "fake"])
@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/api/user/v1/delete", "insider"),
        ("/api/user/v1/delete", "http"),
        ("/api/user/v1/%64elete/", "http"),
        ("/api/user/v1/x/../delete?a=1", "http"),
        ("/api/user/v2/other", "insider"),
    ],
)
def test_no_sender_sends_to_what_erases_profiles(kind: str, path: str, api: str) -> None:
    async def test() -> None:
        async with a_sender(kind, answers=True) as (sender, url):
            with pytest.raises(ConfigurationInvalid):
                await sender.send(request_to(url, path, api=api), 5)

    run(test())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, ""),
        ({"retry-after": "12"}, "12"),
        ({"retry-after": "soon"}, ""),
        ({"retry-after": "Wed, 25 Nov 20262026202620262026 10:00:30 GMT"}, ""),
        ({"retry-after": "Wed, 25 Nov 2026 10:00:30 +99999999999999999999"}, ""),
        ({"retry-after": "9" * 400}, "9" * 400),
        (
            {
                "retry-after": "Wed, 25 Nov 2026 10:00:30 GMT",
                "date": "Wed, 25 Nov 2026 10:00:00 GMT",
            },
            "30",
        ),
        ({"retry-after": "Wed, 25 Nov 2026 09:00:10 GMT"}, "10"),
        ({"retry-after": "Wed, 25 Nov 2026 08:00:00 GMT"}, "0"),
        ({"retry-after": "Wed, 25 Nov 2026 09:00:10 GMT", "date": "broken"}, "10"),
    ],
)
def test_a_retry_date_is_counted_from_the_answers_own_date(
    headers: dict[str, str], seconds: str
) -> None:
    now_at = datetime(2026, 11, 25, 9, 0, 0, tzinfo=UTC)

    assert resolved_retry_after(headers, now_at=now_at) == seconds

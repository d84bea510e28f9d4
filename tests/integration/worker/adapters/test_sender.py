"""The sender against a real server on loopback that behaves in every bad way."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import httpx
import pytest

from segrelay.worker.adapters.sender import MOST_ANSWER_BYTES
from segrelay.worker.destinations.api import Answer, NoAnswer, Silence
from segrelay.worker.errors import ConfigurationInvalid
from tests.integration.worker.adapters.sending import (
    BODY,
    SECRET,
    Behaviour,
    answer,
    answer_nonsense,
    answer_without_end,
    cut_in_the_body,
    drip,
    hang_up,
    redirect,
    request_to,
    reset,
    response,
    run,
    say_nothing,
    sending,
    sent,
)


def test_a_request_arrives_whole_and_its_answer_comes_back() -> None:
    seen: list[bytes] = []

    async def remember(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        writer.write(response(429, b'{"error":"slow"}', Retry_After="7"))

    found = sent(remember, path="/in?a=1", params={"key": "k&1"}, api="http")
    assert found == Answer(429, b'{"error":"slow"}', "7")

    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert body == BODY
    assert head.startswith(b"POST /in?a=1&key=k%261 HTTP/1.1\r\n")
    assert b"X-REQUEST-TOKEN: very-secret" in head
    assert b"Content-Type: application/json" in head
    assert b"Accept-Encoding: identity" in head


async def test_connections_are_kept() -> None:
    peers: set[Any] = set()

    async def remember(request: bytes, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        await answer(request, writer)

    async with sending(remember) as (sender, url):
        for _ in range(5):
            assert isinstance(await sender.send(request_to(url), 5), Answer)

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
    ("behave", "silence", "why"),
    [
        (hang_up, Silence.CUT, "the connection was closed before its end"),
        (reset, Silence.CUT, "connection reset by peer"),
        (say_nothing, Silence.DEADLINE, "nothing complete came within 2 s"),
        (answer_nonsense, Silence.CUT, "what it answered is not HTTP"),
        (cut_in_the_body(200), Silence.CUT, "the connection was closed before its end"),
        (drip(200), Silence.DEADLINE, "nothing complete came within 2 s"),
    ],
)
def test_what_left_and_was_not_answered_is_possibly_applied_and_named(
    behave: Behaviour, silence: Silence, why: str
) -> None:
    result = sent(behave, 2)

    assert result == NoAnswer(silence, possibly_applied=True)
    assert result.message == f"no answer: {why}"


@pytest.mark.parametrize(
    ("behave", "status", "truncated"),
    [(drip(400), 400, True), (cut_in_the_body(400), 400, True), (redirect, 302, False)],
)
def test_a_status_other_than_success_tells_without_its_body_and_is_not_followed(
    behave: Behaviour, status: int, *, truncated: bool
) -> None:
    result = sent(behave, 2)
    assert isinstance(result, Answer)
    assert (result.status, result.truncated) == (status, truncated)


def test_an_endless_answer_is_read_to_a_limit() -> None:
    result = sent(answer_without_end)
    assert isinstance(result, Answer)
    assert result.truncated
    assert len(result.body) == MOST_ANSWER_BYTES


async def test_a_request_that_waits_for_a_connection_until_its_deadline_never_left() -> None:
    async with sending(say_nothing) as (sender, url):
        holding = [asyncio.create_task(sender.send(request_to(url), 2.0)) for _ in range(2)]
        await asyncio.sleep(0)
        late = await sender.send(request_to(url), 0.3)
        assert not late.possibly_applied
        assert [result.possibly_applied for result in await asyncio.gather(*holding)] == [
            True,
            True,
        ]


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
    with pytest.raises(ConfigurationInvalid) as caught:
        sent(answer, **fields)
    assert SECRET not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_a_request_shows_neither_credentials_nor_profiles() -> None:
    shown = repr(request_to("https://example.com", params={"key": SECRET}))

    assert SECRET not in shown
    assert "ann@" not in shown

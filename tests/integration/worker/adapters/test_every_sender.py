"""What every sender does alike: the real one, and the fake that other tests use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from segrelay.worker.adapters.sender import resolved_retry_after
from segrelay.worker.destinations.api import Answer, NoAnswer, OutgoingRequest, Sender, Silence
from segrelay.worker.errors import ConfigurationInvalid
from tests.conformance.drain.fake_sender import FakeSender
from tests.integration.worker.adapters.sending import answer, request_to, say_nothing, sending


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
async def test_every_sender_keeps_the_deadline_and_can_be_cut(kind: str) -> None:
    async with a_sender(kind, answers=False) as (sender, url):
        under_way = asyncio.ensure_future(sender.send(request_to(url), 20))
        result = await sender.send(request_to(url), 2)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        assert result == NoAnswer(Silence.DEADLINE, possibly_applied=True)


@pytest.mark.parametrize("kind", ["http", "fake"])
async def test_every_sender_asks_for_the_permit_at_the_last_moment(kind: str) -> None:
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


async def test_without_the_permit_no_body_is_written() -> None:
    """A process may stand still between the header and the body."""
    seen: list[bytes] = []
    answers = iter([True, False])

    async def remember(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        await answer(request, writer)

    async def permit() -> bool:
        return next(answers)

    async with sending(remember) as (sender, url):
        result = await sender.send(request_to(url), 5, permit)
        await asyncio.sleep(0.1)
        assert result == NoAnswer(Silence.WITHHELD, possibly_applied=False)
        assert seen == []


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
async def test_no_sender_sends_to_what_erases_profiles(kind: str, path: str, api: str) -> None:
    async with a_sender(kind, answers=True) as (sender, url):
        with pytest.raises(ConfigurationInvalid):
            await sender.send(request_to(url, path, api=api), 5)


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
        ({"x-ratelimit-reset": "1795597217"}, "17"),
        ({"x-ratelimit-reset": "1795597217", "retry-after": "3"}, "3"),
        ({"x-ratelimit-reset": "1795597217", "date": "Wed, 25 Nov 2026 09:00:10 GMT"}, "7"),
        ({"x-ratelimit-reset": "17"}, ""),
    ],
)
def test_a_retry_date_is_counted_from_the_answers_own_date(
    headers: dict[str, str], seconds: str
) -> None:
    now_at = datetime(2026, 11, 25, 9, 0, 0, tzinfo=UTC)

    assert resolved_retry_after(headers, now_at=now_at) == seconds

"""What the receiver tells about itself, every few seconds."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain, count

import pytest

from segrelay.producer.webhook.intake import AnswerRecord
from segrelay.worker.contract.processes import WebhookRequest
from segrelay.worker.errors import RedisMismatch, RedisUnavailable


class Told:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.since_taken: Counter[int] = Counter()
        self.looks = 0
        self.lags_ms: list[int] = []
        self.error: Exception | None = None

    def look(self) -> None:
        self.looks += 1
        if self.error:
            raise self.error

    def tell(
        self,
        answers: Mapping[int, int],
        since_taken: Mapping[int, int],
        *,
        lag_ms: int,
        events: bool,
    ) -> None:
        assert lag_ms >= -1
        assert events is bool(answers.get(200))
        self.lags_ms.append(lag_ms)
        self.answers.update(answers)
        self.since_taken.update(since_taken)


def run(told: Told, *statuses: int, until_looks: int, mended_after: int = 0) -> None:
    """Answer requests, and let the record tell until it has looked so often."""
    record = AnswerRecord(told.tell, told.look, every_seconds=0.001)

    async def play() -> None:
        async with record.kept():
            for status in statuses or (200,):
                record.note(WebhookRequest("req-1", status))
            while told.looks < until_looks:
                if mended_after and told.looks >= mended_after:
                    told.error = None
                await asyncio.sleep(0.001)

    asyncio.run(play())


@pytest.mark.parametrize("error", [RedisUnavailable("away"), RedisMismatch("another one")])
def test_what_could_not_be_told_is_told_later_once(error: Exception) -> None:
    told = Told()
    told.error = error

    run(told, until_looks=6, mended_after=3)

    assert told.answers == {200: 1}


@pytest.mark.parametrize("error", [None, RedisUnavailable("away")])
def test_refusals_before_a_request_that_was_taken_are_told_apart(error: Exception | None) -> None:
    told = Told()
    told.error = error

    run(told, 401, 401, 200, 401, until_looks=6, mended_after=3)

    assert told.answers == {401: 3, 200: 1}
    assert told.since_taken == {401: 1}


def lag_of(blocks: int, enough_ms: int = 1, clock: Callable[[], float] = time.monotonic) -> int:
    """Block the event loop some times, and return the longest delay that is reported meanwhile.

    It is not blocked any more once a delay of `enough_ms` was reported.
    """
    told = Told()
    record = AnswerRecord(told.tell, told.look, every_seconds=0.05, clock=clock)

    async def play() -> None:
        async with record.kept():
            for _ in range(blocks):
                if max(told.lags_ms, default=0) < enough_ms:
                    await asyncio.sleep(0.01)
                    time.sleep(0.2)  # noqa: ASYNC251 - this is what makes timers late
            await asyncio.sleep(0.1)

    asyncio.run(play())
    return max(told.lags_ms)


def test_one_late_timer_is_no_starved_receiver_and_many_are() -> None:
    assert lag_of(0, clock=chain([0.0], count(2.0, 0.05)).__next__) < 100
    assert lag_of(80, enough_ms=100) >= 100

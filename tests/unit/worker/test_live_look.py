"""A look for live work: rendering does not wait for Redis' answer, and asks from time to time."""

import asyncio
from dataclasses import dataclass, field

import pytest

from segrelay.worker.drain import LIVE_LOOK_SECONDS, LiveLook
from segrelay.worker.errors import RedisUnavailable


class Clock:
    now = 1_000.0

    def seconds(self):
        return self.now

    async def sleep(self, _seconds):
        await asyncio.sleep(0)


@dataclass
class Redis:
    """Answers a question when a test says so."""

    questions: list[asyncio.Future[bool]] = field(default_factory=list)

    async def ask(self):
        self.questions.append(asyncio.get_running_loop().create_future())
        return await self.questions[-1]


@pytest.fixture
def redis():
    return Redis()


@pytest.fixture
def clock():
    return Clock()


async def turn():
    await asyncio.sleep(0)


async def asking(redis, clock):
    """Return a look that has begun to ask."""
    look = LiveLook(redis.ask, clock)
    look.begin()
    await turn()
    return look


def test_whoever_renders_does_not_wait_for_the_answer(redis, clock):
    async def play():
        look = LiveLook(redis.ask, clock)
        found = [await look.found() for _ in range(3)]
        redis.questions[0].set_result(True)
        return [*found, await look.found()]

    assert asyncio.run(play()) == [False, False, False, True]
    assert len(redis.questions) == 1


def test_it_asks_again_after_a_while_only(redis, clock):
    async def play():
        look = await asking(redis, clock)
        redis.questions[0].set_result(False)
        for passed in (0.0, 0.5, 0.4):
            clock.now += passed * LIVE_LOOK_SECONDS
            assert not await look.found()
            assert len(redis.questions) == 1
        clock.now += 0.2 * LIVE_LOOK_SECONDS
        await look.found()
        await turn()
        assert len(redis.questions) == 2

    asyncio.run(play())


def test_what_came_after_a_question_is_asked_for_anew(redis, clock):
    async def play():
        look = await asking(redis, clock)
        called = asyncio.ensure_future(look.finds())
        redis.questions[0].set_result(False)
        while len(redis.questions) == 1:
            await turn()
        redis.questions[1].set_result(True)
        return await called

    assert asyncio.run(play()) is True


def test_what_a_question_under_way_finds_is_not_asked_for_anew(redis, clock):
    async def play():
        look = await asking(redis, clock)
        called = asyncio.ensure_future(look.finds())
        redis.questions[0].set_result(True)
        return await called

    assert asyncio.run(play()) is True
    assert len(redis.questions) == 1


def test_the_end_waits_for_the_answer_and_an_unreachable_redis_is_left_to_others(redis, clock):
    async def play():
        look = await asking(redis, clock)
        ending = asyncio.ensure_future(look.end())
        await turn()
        assert not ending.done()
        redis.questions[0].set_exception(RedisUnavailable("Redis is not there."))
        await ending

    asyncio.run(play())

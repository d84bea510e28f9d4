"""The keys that all partitions have in common, as a drain reads them in a Redis and a Cluster."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from segrelay.worker.adapters.redis.shared_keys import RedisNumbers, SharedKeys
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.connection import connect_async
from tests.configuration import insider, settings_in, trigger

NOBODY = "redis://127.0.0.1:1/0"
"""A broker that is asked for nothing: a Cluster can not be one."""
Told = Callable[[Any, SharedKeys, RedisNumbers], Awaitable[None]]


@pytest.fixture
def play(url: str, tmp_path: Path) -> Callable[[Told], None]:
    """Let a story happen in one event loop, with a client, our keys and the numbers."""
    tables = (
        insider(),
        insider("other"),
        trigger("enter", audiences=["vip", "4711"]),
        trigger("gold", audiences=["gold"]),
        trigger("all", audiences=["*"], destination="other"),
    )
    settings = settings_in(tmp_path, *tables, redis=url, broker_url=NOBODY)

    def run(story: Told) -> None:
        async def told() -> None:
            async with connect_async(url) as client:
                await story(client, SharedKeys(client, settings), RedisNumbers(client))

        asyncio.run(told())

    return run


def test_nothing_is_paused_or_numbered_in_an_empty_redis(play: Any) -> None:
    async def story(_: Any, ours: SharedKeys, numbers: RedisNumbers) -> None:
        standing = await ours.standing("insider")

        assert (standing.paused, standing.streaks) == (frozenset(), frozenset())
        assert standing.scopes["enter"].audiences == {"vip", "4711"}
        await numbers.read()
        assert numbers.triggers() == {}

    play(story)


def test_a_destination_is_paused_or_triggers_and_jobs_are(play: Any) -> None:
    async def story(client: Any, ours: SharedKeys, _: RedisNumbers) -> None:
        await client.hset(keys.PAUSED, mapping={"trigger|enter": "{}", "job|load": "{}"})
        await client.hset(keys.PAUSED, "destination|other", "{}")
        await client.hset(keys.STREAKS, "gold", "refused|3")

        standing = await ours.standing("insider")

        assert standing.paused == {"enter", "job.load"}
        assert standing.streaks == {"gold"}
        assert (await ours.standing("other")).paused is None

    play(story)


def test_meanings_follow_the_slugs_of_ids(play: Any) -> None:
    async def story(client: Any, ours: SharedKeys, _: RedisNumbers) -> None:
        before = (await ours.standing("insider")).scopes
        again = (await ours.standing("insider")).scopes
        await client.hset(keys.AUDIENCES, mapping={"4711": "silver", "12": "bronze"})
        after = (await ours.standing("insider")).scopes

        assert again is before
        assert after["enter"].audiences == {"vip", "4711", "silver"}
        assert after["gold"].audiences == {"gold"}
        assert (await ours.standing("other")).scopes["all"].audiences is None

    play(story)


def test_the_numbers_that_redis_has_are_learned(play: Any) -> None:
    async def story(client: Any, _: SharedKeys, numbers: RedisNumbers) -> None:
        await client.hset(keys.NAMES, mapping={"a|silver": 1, "t|enter": 2})

        await numbers.read()

        assert (numbers.audience("silver"), numbers.trigger("enter")) == (1, 2)

    play(story)


def test_numbers_that_redis_has_lost_are_forgotten(play: Any) -> None:
    async def story(client: Any, _: SharedKeys, numbers: RedisNumbers) -> None:
        await numbers.learn(["vip"], ["enter"])
        await client.hdel(keys.NAMES, "t|enter")

        await numbers.read()

        assert numbers.slugs([numbers.audience("vip")]) == {"vip"}
        assert numbers.triggers() == {}

    play(story)

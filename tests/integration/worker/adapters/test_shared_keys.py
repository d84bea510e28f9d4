"""The keys that all partitions have in common, as a drain reads them in a Redis and a Cluster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from segrelay.worker.adapters.redis.shared_keys import SharedKeys
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.connection import connect_async
from segrelay.worker.contract.settings import Settings
from tests.configuration import insider, settings_in, trigger

NOBODY = "redis://127.0.0.1:1/0"
"""A broker that is asked for nothing: a Cluster can not be one."""


@pytest.fixture
def settings(url: str, tmp_path: Path) -> Settings:
    tables = (
        insider(),
        insider("other"),
        trigger("enter", audiences=["vip", "4711"]),
        trigger("gold", audiences=["gold"]),
        trigger("all", audiences=["*"], destination="other"),
    )
    return settings_in(tmp_path, *tables, redis=url, broker_url=NOBODY)


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[tuple[Any, SharedKeys]]:
    """Yield a client, and the keys that all have in common."""
    async with connect_async(settings.redis.url) as client:
        yield client, SharedKeys(client, settings)


async def test_a_destination_is_paused_or_triggers_and_jobs_are(settings: Settings) -> None:
    async with reading(settings) as (client, ours):
        await client.hset(keys.PAUSED, mapping={"trigger|enter": "{}", "job|load": "{}"})
        await client.hset(keys.PAUSED, "destination|other", "{}")
        await client.hset(keys.STREAKS, "gold", "refused|3")

        standing = await ours.standing("insider")

        assert standing.paused == {"enter", "job.load"}
        assert standing.streaks == {"gold"}
        assert (await ours.standing("other")).paused is None


async def test_meanings_follow_the_slugs_of_ids(settings: Settings) -> None:
    async with reading(settings) as (client, ours):
        before = (await ours.standing("insider")).scopes
        again = (await ours.standing("insider")).scopes
        await client.hset(keys.AUDIENCES, mapping={"4711": "silver", "12": "bronze"})
        after = (await ours.standing("insider")).scopes

        assert again is before
        assert after["enter"].audiences == {"vip", "4711", "silver"}
        assert after["gold"].audiences == {"gold"}
        assert (await ours.standing("other")).scopes["all"].audiences is None

"""Numbers of audiences and triggers in a real Redis, which may lose the last that it gave."""

from typing import Any

from segrelay.worker.adapters.redis.shared_keys import RedisNumbers
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.connection import connect_async


async def _fail_over(client: Any, names: dict[bytes, bytes], numbered: dict[bytes, bytes]) -> None:
    """Put back what the replica had; it is another process of Redis."""
    for key, fields in ((keys.NAMES, names), (keys.NUMBERED, numbered)):
        await client.delete(key)
        await client.hset(key, mapping=fields)
    await client.hset(keys.NUMBERED, "process", "another")


async def test_a_number_that_a_failover_lost_is_not_given_to_another_name(redis_url: str) -> None:
    async with connect_async(redis_url) as client:
        one, two = RedisNumbers(client), RedisNumbers(client)
        await one.learn(["vip"], [])
        names, numbered = await client.hgetall(keys.NAMES), await client.hgetall(keys.NUMBERED)
        await one.learn(["lost"], [])

        await _fail_over(client, names, numbered)
        await two.learn(["vip", "new"], [])
        one.replace(await client.hgetall(keys.NAMES))

        assert (two.audience("vip"), two.audience("new") > 2) == (1, True)
        assert one.slugs([1, 2, two.audience("new")]) == {"vip", "new"}

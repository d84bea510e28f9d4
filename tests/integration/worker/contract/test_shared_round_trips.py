"""What is read after a script shares its round trip."""

from contextlib import aclosing

import pytest

from segrelay.worker.contract.redis.connection import connect_async
from segrelay.worker.contract.redis.scripts import ScriptCall, run_together

WRITES = "redis.call('SET', KEYS[1], ARGV[1]); return ARGV[1]"


async def reads(client):
    return (await client.info("stats"))["total_reads_processed"]


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_is_read_after_a_script_tells_what_the_script_has_written(redis_url, is_known):
    async with aclosing(connect_async(redis_url)) as client:
        await client.script_flush()
        if is_known:
            await client.script_load(WRITES)
        await client.set("{t}then", "before")
        call = ScriptCall(["{t}then"], ["after"])
        before = await reads(client)
        found = await run_together(client, [(WRITES, call)], [("GET", "{t}then")])
        read = await reads(client) - before

    assert found == [b"after", b"after"]
    # One of them is the question for the number.
    assert read == (2 if is_known else 3)

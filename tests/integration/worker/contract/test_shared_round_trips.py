"""Calls of scripts that begin together share a round trip."""

import asyncio
from contextlib import aclosing

import pytest

from segrelay.worker.contract.redis.client import ResponseError
from segrelay.worker.contract.redis.connection import connect_async
from segrelay.worker.contract.redis.scripts import (
    ScriptCall,
    one_round_trip,
    run_script_async,
    run_script_then,
)

WRITES = "redis.call('SET', KEYS[1], ARGV[1]); return ARGV[1]"
FAILS = "return redis.call('HSET', KEYS[1], 'a', 'b')"


async def reads(client):
    return (await client.info("stats"))["total_reads_processed"]


async def run_all(client, *calls):
    tasks = [asyncio.ensure_future(run_script_async(client, *call)) for call in calls]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_scripts_that_begin_together_share_a_round_trip_and_each_gets_its_answer(redis_url):
    calls = [(WRITES, [f"{{t}}{n}"], [f"v{n}"]) for n in range(3)]

    async with aclosing(connect_async(redis_url)) as client:
        await run_all(client, *calls)  # Redis knows the script, and the connections are made
        before = await reads(client)
        with one_round_trip():
            found = await run_all(client, *calls)
        shared = await reads(client)
        await run_all(client, *calls)
        apart = await reads(client) - shared

    assert found == [b"v0", b"v1", b"v2"]
    # One of them is the question for the number.
    assert (shared - before, apart) == (2, 4)


async def test_a_script_that_redis_does_not_know_yet_is_sent_to_it(redis_url):
    async with aclosing(connect_async(redis_url)) as client:
        await client.script_flush()
        with one_round_trip():
            answers = await run_all(client, (WRITES, ["{t}a"], ["1"]), (WRITES, ["{t}b"], ["2"]))

    assert answers == [b"1", b"2"]


async def test_an_error_of_one_is_raised_to_all_and_the_next_ones_are_sent(redis_url):
    async with aclosing(connect_async(redis_url)) as client:
        await client.set("{t}text", "no hash")
        with one_round_trip():
            failed = await run_all(client, (WRITES, ["{t}a"], ["1"]), (FAILS, ["{t}text"], []))
            after = await run_all(client, (WRITES, ["{t}a"], ["2"]))

    assert [str(each) for each in failed] == [str(failed[0])] * 2
    assert "WRONGTYPE" in str(failed[0])
    assert after == [b"2"]


async def test_who_does_not_wait_any_more_takes_no_answer_from_the_others(redis_url):
    async with aclosing(connect_async(redis_url)) as client:
        with one_round_trip():
            gone = asyncio.ensure_future(run_script_async(client, WRITES, ["{t}a"], ["1"]))
            stays = asyncio.ensure_future(run_script_async(client, WRITES, ["{t}b"], ["2"]))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            answers = await stays

    assert answers == b"2"


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_is_read_after_a_script_tells_what_the_script_has_written(redis_url, is_known):
    async with aclosing(connect_async(redis_url)) as client:
        await client.script_flush()
        if is_known:
            await client.script_load(WRITES)
        await client.set("{t}then", "before")
        call = ScriptCall(["{t}then"], ["after"])
        before = await reads(client)
        found = await run_script_then(client, WRITES, call, [("GET", "{t}then")])
        read = await reads(client) - before

    assert found == [b"after", b"after"]
    # One of them is the question for the number.
    assert read == (2 if is_known else 3)


async def test_an_error_of_what_is_read_after_a_script_is_raised(redis_url):
    async with aclosing(connect_async(redis_url)) as client:
        call = ScriptCall(["{t}then"], ["text"])
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await run_script_then(client, WRITES, call, [("HGETALL", "{t}then")])

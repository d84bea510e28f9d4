"""A drain for live work: what it reads, for what it keeps its lease, and how it sends one event."""

from segrelay.worker.adapters.redis.shared_keys import RedisNumbers
from segrelay.worker.batch.partition import Tally
from tests.conformance.drain.world import event, members
from tests.simulation.virtual_redis import at_once


def test_a_drain_for_live_work_reads_nothing_of_a_backfill_and_wakes_for_it(make_world) -> None:
    world = make_world()
    world.kinds = ("live",)
    world.put(event("ada"), *(event(f"p{n}", lane="backfill") for n in range(100)))

    tally, wake = world.drain()

    assert (tally.delivered, wake) == (1, "backfill")
    assert world.streams_read == {"live|enter"}
    assert world.drain() == (Tally(), "backfill"), "nor is it left if there is nothing live"


def test_what_comes_while_a_drain_for_live_work_finds_nothing_is_delivered_by_it(
    make_world,
) -> None:
    world = make_world()
    world.kinds = ("live",)
    world.put(event("bob", lane="backfill"))

    class Numbers(RedisNumbers):
        async def read(self) -> None:
            await super().read()
            world.put(event("ada"))
            assert at_once(world.partition().take()) is None, "whom its call woke is sent away"

    world.numbers = Numbers(world.redis)

    tally, wake = world.drain()

    assert (tally.delivered, wake) == (1, "backfill")
    assert members(world) == {"ada@example.com"}


def test_a_drain_of_one_live_event_asks_for_no_streams(make_world) -> None:
    world = make_world()
    world.kinds = ("live",)
    world.put(event("ada"))
    world.client.asked.clear()

    world.drain()

    assert members(world) == {"ada@example.com"}
    assert not world.client.asked["SMEMBERS"], "taking the partition tells them"

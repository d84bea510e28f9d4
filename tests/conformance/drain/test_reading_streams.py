"""Reading many streams: in few round trips, in the order in which the entries came."""

import random

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.read import order_of, read_batch
from segrelay.worker.batch.state import State
from tests.conformance.clocked_redis import at_once
from tests.conformance.drain.fakes import SlowPartition
from tests.conformance.drain.world import event

TRIGGERS = [f"audience-{number:03}" for number in range(400)]


class NoClock:
    def seconds(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def read(partition: SlowPartition, entries: int) -> list[Delivery]:
    async def once() -> list[Delivery]:
        holding = await partition.take()
        assert holding is not None
        state = State.of(holding, NoClock(), 30.0)
        return await read_batch(partition, state, list(await partition.streams()), entries=entries)

    return at_once(once())


def partition_with(make_world, triggers: list[str]) -> SlowPartition:
    world = make_world()
    world.put(*(event(str(n), trigger=trigger) for n, trigger in enumerate(triggers)))
    return world.partition()


def test_four_hundred_streams_are_read_in_few_round_trips(make_world) -> None:
    rng = random.Random(1)
    partition = partition_with(make_world, [rng.choice(TRIGGERS) for _ in range(3_000)])

    batch = read(partition, 1_000)

    assert len(batch) == 1_000
    assert partition.round_trips <= 8


def test_streams_are_merged_in_the_order_in_which_their_entries_came(make_world) -> None:
    rng = random.Random(2)
    triggers = [rng.choice(TRIGGERS[: rng.choice((1, 3, 400))]) for _ in range(3_000)]

    world = make_world()
    events = [event(str(number), trigger=trigger) for number, trigger in enumerate(triggers)]
    for first in range(0, len(events), 100):
        world.put(*events[first : first + 100])
    came = sorted(order_of(i) for entries in world.store.streams.values() for i in entries)

    batch = read(world.partition(), 1_000)

    assert [order_of(delivery.entry_id) for delivery in batch] == came[:1_000]


def test_one_stream_alone_is_read_to_its_end(make_world) -> None:
    batch = read(partition_with(make_world, ["enter"] * 700), 1_000)

    assert len(batch) == 700

"""Reading many streams: in few round trips, in the order in which the entries came."""

import asyncio
import random

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.read import order_of, read_batch
from segrelay.worker.batch.state import State
from tests.fakes.partition_store import PartitionStore
from tests.unit.worker.drain_fakes import SlowPartition
from tests.unit.worker.drain_world import START_MS, event

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

    return asyncio.run(once())


def partition_with(triggers: list[str]) -> SlowPartition:
    partition = SlowPartition(PartitionStore(lambda: START_MS))
    asyncio.run(
        partition.accept([event(str(n), trigger=trigger) for n, trigger in enumerate(triggers)])
    )
    return partition


def test_four_hundred_streams_are_read_in_few_round_trips() -> None:
    rng = random.Random(1)
    partition = partition_with([rng.choice(TRIGGERS) for _ in range(3_000)])

    batch = read(partition, 1_000)

    assert len(batch) == 1_000
    assert partition.round_trips <= 8


def test_streams_are_merged_in_the_order_in_which_their_entries_came() -> None:
    rng = random.Random(2)
    triggers = [rng.choice(TRIGGERS[: rng.choice((1, 3, 400))]) for _ in range(3_000)]

    batch = read(partition_with(triggers), 1_000)

    ids = [order_of(delivery.entry_id) for delivery in batch]
    assert ids == sorted(ids)
    assert [delivery.trigger for delivery in batch] == triggers[:1_000]


def test_one_stream_alone_is_read_to_its_end() -> None:
    batch = read(partition_with(["enter"] * 700), 1_000)

    assert len(batch) == 700

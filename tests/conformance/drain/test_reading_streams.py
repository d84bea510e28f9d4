"""Reading many streams: in few round trips, in the order in which the entries came."""

import random

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.read import Reading, order_of, read_batch
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


async def begin(partition: SlowPartition, entries: int) -> Reading:
    holding = await partition.take()
    assert holding is not None
    state = State.of(holding, NoClock(), 30.0)
    return await read_batch(partition, state, list(await partition.streams()), entries=entries)


def read(partition: SlowPartition, entries: int) -> list[Delivery]:
    return at_once(begin(partition, entries)).deliveries


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


def test_streams_that_run_dry_one_after_the_other_are_read_on_together(make_world) -> None:
    rng = random.Random(4)
    world, fields = make_world(), {"note": "x" * 1_000}
    events = [event(str(n), trigger=rng.choice(TRIGGERS), **fields) for n in range(6_000)]
    for first in range(0, len(events), 1_000):
        world.put(*events[first : first + 1_000])
    partition = world.partition()

    async def three() -> list[int]:
        reading, streams = await begin(partition, 2_000), list(await partition.streams())
        first = reading.deliveries
        second = await reading.read_on(streams, first)
        third = await reading.read_on(streams, second)
        return [len(first), len(second), len(third)]

    assert at_once(three()) == [2_000, 2_000, 2_000]
    assert partition.round_trips <= 20
    assert partition.entries_read == 6_000


def ids(deliveries: list[Delivery]) -> list[tuple[int, int]]:
    return [order_of(delivery.entry_id) for delivery in deliveries]


def test_what_did_not_fit_into_a_batch_is_not_read_again_for_the_next_one(make_world) -> None:
    rng = random.Random(3)
    partition = partition_with(make_world, [rng.choice(TRIGGERS) for _ in range(3_000)])

    async def both() -> tuple[list[Delivery], list[Delivery], list[Delivery]]:
        reading, streams = await begin(partition, 1_000), list(await partition.streams())
        first = reading.deliveries
        second = await reading.read_on(streams, first)
        return first, second, await reading.read_on(streams, second)

    first, second, third = at_once(both())

    assert [len(first), len(second), len(third)] == [1_000, 1_000, 1_000]
    assert ids([*first, *second, *third]) == sorted(ids([*first, *second, *third]))
    assert partition.entries_read == 3_000


def test_reading_on_finds_what_came_meanwhile_to_old_and_new_streams(make_world) -> None:
    world = make_world()
    world.put(event("a"), event("b"))
    partition = world.partition()

    async def both() -> list[Delivery]:
        reading = await begin(partition, 100)
        world.put(event("c"), event("d", trigger="exit"))
        return await reading.read_on(list(await partition.streams()), reading.deliveries)

    assert [delivery.stream for delivery in at_once(both())] == ["live|enter", "live|exit"]


def test_whoever_was_passed_over_is_read_again_once_nobody_waits(make_world) -> None:
    partition = partition_with(make_world, ["enter"] * 4)

    async def both() -> tuple[list[Delivery], list[Delivery]]:
        everything = (await begin(partition, 4)).deliveries
        reading = await begin(partition, 100)
        reading.state.waiting[everything[2].digest] = [
            (reading.state.now_ms() + 1_000, frozenset())
        ]
        reading = await read_batch(partition, reading.state, ["live|enter"], entries=2)
        reading.sources["live|enter"].hold = None
        await reading.read_on(["live|enter"], reading.deliveries)
        reading.state.waiting.clear()
        return everything, await reading.read_on(["live|enter"], everything[:2])

    everything, found = at_once(both())

    assert ids(found) == ids(everything[2:])

"""Reading many streams: in few round trips, in the order in which the entries came."""

import random
from types import SimpleNamespace
from typing import Any

from segrelay.worker.batch.batch import Responses
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import State
from segrelay.worker.batch.read import OPEN_BYTES, PREVIEW_ENTRIES, order_of, read_batch
from tests.conformance.drain.fakes import SlowPartition
from tests.conformance.drain.world import event
from tests.simulation.virtual_redis import at_once

TRIGGERS = [f"audience-{number:03}" for number in range(400)]


def drain_with(partition: Any) -> Any:
    """Return the parts of a drain that are used while it reads and settles."""
    trigger = SimpleNamespace(edition="", stopped="")
    return SimpleNamespace(
        partition=partition,
        clock=SimpleNamespace(seconds=lambda: 0.0),
        late_seconds=30.0,
        triggers=dict.fromkeys([*TRIGGERS, "enter"], trigger),
        paused=frozenset(),
        scopes={},
        responses=Responses(),
    )


async def begin(
    partition: SlowPartition, entries: int, *waiting: bytes, probing: str = ""
) -> list[Delivery]:
    holding = await partition.take()
    assert holding is not None
    state = State.of(holding, drain_with(partition))
    state.probing.add(probing)
    state.waiting |= {digest: [(1 << 60, frozenset())] for digest in waiting}
    return await read_batch(state, list(await partition.streams()), entries=entries)


def read(
    partition: SlowPartition, entries: int, *waiting: bytes, probing: str = ""
) -> list[Delivery]:
    return at_once(begin(partition, entries, *waiting, probing=probing))


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
        world.pass_seconds(0.001)
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

    assert len(read(partition, 2_000)) == 2_000
    assert partition.round_trips <= 20
    assert partition.entries_read <= 4_500


def test_of_large_entries_not_many_more_are_read_than_a_batch_takes(make_world) -> None:
    world, rng = make_world(), random.Random(5)
    for n in range(300):
        world.put(event(str(n), note=rng.randbytes(30_000).hex()))
    partition = world.partition()

    assert len(read(partition, 2_000)) < partition.entries_read < 300


def test_little_is_read_of_a_trigger_that_sends_a_probe_next(make_world) -> None:
    partition = partition_with(make_world, ["enter"] * 2_000)

    assert len(read(partition, 1_000, probing="enter")) == PREVIEW_ENTRIES
    assert partition.entries_read < 1_000


def test_what_waits_behind_a_batch_that_is_nearly_full_is_passed_over_in_few_round_trips(
    make_world,
) -> None:
    world = make_world()
    world.put(*(event(str(n)) for n in range(99)))
    for _ in range(4):
        world.put(*(event("waits", at=n) for n in range(1_000)))
    waits = event("waits").header.digest
    partition = world.partition()

    assert len(read(partition, 100, waits)) == 99
    assert partition.round_trips <= 20


def test_what_was_too_much_to_be_decoded_comes_in_its_order(make_world) -> None:
    world = make_world()
    world.limits |= {"batch_entries": 100, "slice_seconds": 60.0}
    large = "large" * (OPEN_BYTES // 100 // 4)
    world.put(*(event(f"p{n}", large=large) for n in range(100)))
    world.put(*(event(f"q{n}") for n in range(200)))

    world.drain()

    ids = [order_of(p.rpartition("|")[2]) for sent in world.sendings for p in sent.positions]
    assert len(world.sendings[0].positions) < 100
    assert len(ids) == 300
    assert ids == sorted(ids)

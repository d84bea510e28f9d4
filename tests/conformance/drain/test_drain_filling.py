"""How full requests are: small ones wait to be shared, and nobody is delayed by that for long."""

import random
from collections.abc import Iterator

from segrelay.worker.contract.redis.accept import NewDelivery
from tests.conformance.drain.fake_insider import DELETE, Reply, Sending, taken
from tests.conformance.drain.world import World, event, members

AUDIENCES = [f"audience-{number}" for number in range(20)]


def of_few_people(events: int, people: int) -> Iterator[NewDelivery]:
    rng = random.Random(1)
    for at in range(events):
        trigger = rng.choice(("enter", "exit"))
        yield event(f"p{rng.randrange(people)}", rng.choice(AUDIENCES), trigger, at=at)


def deletes(world: World) -> list[int]:
    return [len(sending.users) for sending in world.sendings if sending.url == DELETE]


def test_people_with_several_events_cost_few_requests(make_world) -> None:
    world = make_world()
    world.put(*of_few_people(10_000, 8_000))

    tally, _ = world.drain()

    assert world.store.waiting() == 0
    assert tally.delivered + tally.skipped == 10_000
    assert tally.requests <= 2 * 10 + 8


def test_what_a_batch_leaves_is_rendered_once(make_world) -> None:
    world = make_world()
    world.put(*of_few_people(5_000, 1_000))

    tally, _ = world.drain()

    assert tally.delivered + tally.skipped == 5_000
    assert world.rendered.total() + world.rendered_ahead.total() < 5_000


def test_second_events_of_one_batch_share_requests(make_world) -> None:
    world = make_world()
    world.put(*of_few_people(900, 450))

    tally, _ = world.drain()

    assert world.store.waiting() == 0
    assert tally.requests <= 12


def test_whoever_is_left_once_goes_with_the_next_batch(make_world) -> None:
    world = make_world()
    rare = [event(f"rare{n}", trigger="exit") for n in range(3)]
    many = [event(f"p{n}") for n in range(5_000)]
    world.put(*many[:500], *rare, *many[500:])

    world.drain()

    assert deletes(world) == [3]
    before = world.sendings.index(next(s for s in world.sendings if s.url == DELETE))
    assert before <= 2


def test_a_few_live_events_wait_for_nothing(make_world) -> None:
    world = make_world()
    world.put(event("ada"), event("bob", trigger="exit"), event("ada", "cart"), event("cyd"))

    world.drain()

    assert len(members(world)) == 2
    assert world.store.waiting() == 0


def test_at_the_end_of_a_slice_nothing_that_is_rendered_is_left(make_world) -> None:
    world = make_world()
    world.render_seconds = 0.2
    world.put(*of_few_people(4_000, 1_000))

    world.drain()

    assert world.rendered.total() == world.count("delivered")


def hangs(sending: Sending) -> Reply:
    return Reply(None, False, "unsure") if sending.url == DELETE else taken(sending)


def seconds_until_the_first_entrance(world: World) -> float:
    begun = world.loop.time()
    world.drain()
    return min(sending.at for sending in world.sendings if sending.url != DELETE) - begun


def test_a_path_that_hangs_holds_up_nobody_of_another(make_world) -> None:
    world = make_world(hangs)
    leaving = [event(f"p{n}", trigger="exit") for n in range(3_000)]
    world.put(*leaving[:500], *[event(f"rare{n}") for n in range(3)], *leaving[500:])

    assert seconds_until_the_first_entrance(world) < 1


def test_who_waits_for_a_request_that_hangs_holds_up_nobody_else(make_world) -> None:
    world = make_world(hangs)
    world.put(*[event(f"p{n}", trigger="exit") for n in range(300)])
    world.put(*[event(f"p{n}", "cart") for n in range(10)], event("free", "cart"))

    assert seconds_until_the_first_entrance(world) < 1

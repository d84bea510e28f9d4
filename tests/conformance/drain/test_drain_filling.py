"""What is rendered is sent, and nobody is held up by a request that hangs."""

import random
from collections.abc import Iterator

from segrelay.worker.contract.redis.accept import NewDelivery
from tests.conformance.drain.fake_insider import DELETE, Reply, Sending, taken
from tests.conformance.drain.world import World, event

AUDIENCES = [f"audience-{number}" for number in range(20)]


def of_few_people(events: int, people: int) -> Iterator[NewDelivery]:
    rng = random.Random(1)
    for at in range(events):
        trigger = rng.choice(("enter", "exit"))
        yield event(f"p{rng.randrange(people)}", rng.choice(AUDIENCES), trigger, at=at)


def test_at_the_end_of_a_slice_nothing_that_is_rendered_is_left(make_world) -> None:
    world = make_world()
    world.render_seconds = 0.2
    world.put(*of_few_people(1_500, 400))

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
    leaving = [event(f"p{n}", trigger="exit") for n in range(1_200)]
    world.put(*leaving[:500], *[event(f"rare{n}") for n in range(3)], *leaving[500:])

    assert seconds_until_the_first_entrance(world) < 1


def test_who_waits_for_a_request_that_hangs_holds_up_nobody_else(make_world) -> None:
    world = make_world(hangs)
    world.put(*[event(f"p{n}", trigger="exit") for n in range(300)])
    world.put(*[event(f"p{n}", "cart") for n in range(10)], event("free", "cart"))

    assert seconds_until_the_first_entrance(world) < 1

"""What takes long to render is sent all the same, and live work does not wait for a backfill."""

import itertools
from collections.abc import Callable
from dataclasses import replace

from segrelay.worker.batch.render import RENDER_GROUP
from segrelay.worker.destinations.insider.api import InsiderApi
from tests.conformance.drain.fake_insider import Reply, Sending, taken
from tests.conformance.drain.world import World, event, members


def whenever_a_backfill_is_read(world: World, happens: Callable[[], None]) -> None:
    class Read(set):
        def update(self, names) -> None:
            if any(name.startswith("backfill|") for name in names):
                happens()

    world.streams_read = Read()


def test_a_backfill_is_rendered_no_further_when_live_work_comes(make_world) -> None:
    world = make_world()
    world.render_seconds = 0.06
    world.put(*(event(f"p{n}", lane="backfill") for n in range(1_500)))
    world.loop.call_later(0.15, lambda: world.put(event("ada")))

    tally, _ = world.drain()

    first, live, *_ = world.sendings
    assert 1 < len(first.positions) <= 700
    assert [position.partition("|")[0] for position in live.positions] == ["live"]
    assert tally.delivered == 1_501, "then the backfill goes on"
    assert world.rendered.total() == 1_501, "nothing is rendered twice"


def test_live_work_here_is_delivered_before_a_drain_ends_for_live_work_elsewhere(
    make_world,
) -> None:
    world = make_world()
    world.render_seconds = 0.06
    world.live_waits_elsewhere = True
    world.put(*(event(f"p{n}", lane="backfill") for n in range(1_500)))
    world.loop.call_later(0.05, lambda: world.put(event("ada")))

    tally, _ = world.drain()

    assert "ada@example.com" in members(world)
    assert tally.requests == 2


def test_a_backfill_comes_on_though_live_work_comes_whenever_it_was_read(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}", lane="backfill") for n in range(300)))
    numbers = itertools.count()
    whenever_a_backfill_is_read(world, lambda: world.put(event(f"live{next(numbers)}")))

    for _ in range(20):
        world.drain()

    assert world.store.waiting() == 0


def test_live_work_that_came_while_a_backfill_was_read_waits_for_one_part_of_it(make_world) -> None:
    world = make_world()
    world.render_seconds = 0.01
    world.put(*(event(f"p{n}", lane="backfill") for n in range(900)))
    coming = [event("ada")]
    whenever_a_backfill_is_read(world, lambda: coming and world.put(coming.pop()))

    world.drain()

    first, live, *_ = world.sendings
    assert len(first.positions) == RENDER_GROUP
    assert [position.partition("|")[0] for position in live.positions] == ["live"]


def test_where_people_go_alone_little_is_rendered_before_the_first_is_sent(make_world) -> None:
    world = make_world(api=replace(InsiderApi(), max_users=1))
    world.render_seconds = 0.06
    world.put(*(event(f"p{n}") for n in range(300)))
    begun = world.loop.time()

    world.drain()

    assert world.sendings[0].at - begun < 2 * world.render_seconds


def test_while_all_of_a_backfills_batch_is_under_way_live_work_is_not_asked_for(
    make_world,
) -> None:
    world = make_world()
    world.put(*(event(f"p{n}", lane="backfill") for n in range(50)))
    world.put(*(event(f"q{n}", lane="backfill", trigger="exit") for n in range(50)))
    world.drain()
    world.put(*(event(f"r{n}", lane="backfill") for n in range(50)))
    world.put(*(event(f"s{n}", lane="backfill", trigger="exit") for n in range(50)))
    world.client.asked.clear()

    tally, _ = world.drain()

    assert tally.requests == 2
    assert world.client.asked["SMEMBERS"] == 2, "once while it is rendered, once behind it"


def test_one_request_of_a_backfill_is_answered_before_the_live_work_that_waits(make_world) -> None:
    world = make_world(api=replace(InsiderApi(), max_users=50))
    world.render_seconds = 0.03
    world.limits["in_flight"] = 1
    world.put(*(event(f"p{n}", lane="backfill") for n in range(1_500)))
    world.loop.call_later(0.01, lambda: world.put(event("ada")))

    world.drain()

    lanes = [each.positions[0].partition("|")[0] for each in world.sendings]
    assert lanes[:3] == ["backfill", "live", "backfill"]


def test_a_live_event_of_a_person_whose_backfill_is_not_sent_yet_waits_for_it(make_world) -> None:
    def answers_the_first_soon(sending: Sending) -> Reply:
        reply = taken(sending)
        reply.answer_seconds = 1.0 if len(world.sendings) == 1 else 4.0
        return reply

    world = make_world(answers_the_first_soon, api=replace(InsiderApi(), max_users=5))
    world.limits |= {"in_flight": 2, "slice_seconds": 60.0}
    world.put(*(event(f"p{n}", lane="backfill") for n in range(20)))
    world.loop.call_later(0.5, lambda: world.put(event("p19", trigger="exit", at=2)))

    world.drain_until_nothing_is_left()

    assert "p19@example.com" not in members(world)
    assert len(members(world)) == 19

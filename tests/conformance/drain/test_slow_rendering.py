"""What takes long to render is sent all the same, and live work does not wait for a backfill."""

from dataclasses import replace

from segrelay.worker.destinations.insider.api import InsiderApi
from tests.conformance.drain.world import event, members


def test_what_took_long_to_render_is_sent_nevertheless(make_world) -> None:
    world = make_world()
    world.render_seconds = 1.5
    world.put(*(event(f"p{n}") for n in range(300)))

    tally, _ = world.drain()

    assert tally.delivered == 300


def test_a_backfill_is_rendered_no_further_when_live_work_comes(make_world) -> None:
    world = make_world()
    world.render_seconds = 0.06
    world.put(*(event(f"p{n}", lane="backfill") for n in range(1_500)))
    world.loop.call_later(0.15, lambda: world.put(event("ada")))

    tally, _ = world.drain()

    assert "ada@example.com" in members(world)
    assert 1 < tally.delivered == world.rendered.total() <= 701
    assert world.store.waiting() == 1_501 - tally.delivered


def test_live_work_is_rendered_to_its_end(make_world) -> None:
    world = make_world()
    world.render_seconds = 0.06
    world.put(*(event(f"p{n}") for n in range(1_500)))
    world.loop.call_later(0.15, lambda: world.put(event("ada")))

    world.drain()

    assert world.rendered["enter"] >= 1_500


def test_where_people_go_alone_little_is_rendered_before_the_first_is_sent(make_world) -> None:
    world = make_world(api=replace(InsiderApi(), max_users=1))
    world.render_seconds = 0.06
    world.put(*(event(f"p{n}") for n in range(300)))
    begun = world.loop.time()

    world.drain()

    assert world.sendings[0].at - begun < 2 * world.render_seconds

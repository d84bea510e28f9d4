"""A batch whose rendering takes longer than a slice is sent all the same."""

from tests.unit.worker.drain_world import event


def test_what_took_long_to_render_is_sent_nevertheless(make_world) -> None:
    world = make_world()
    world.render_seconds = 1.5
    world.put(*(event(f"p{n}") for n in range(300)))

    tally, _ = world.drain()

    assert tally.delivered == 300

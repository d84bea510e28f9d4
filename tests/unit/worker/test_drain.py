"""One drain after the other, and what becomes of events, in a world without a network."""

import pytest

from tests.unit.worker.drain_world import World, event, failed, refused, taken


def test_events_are_delivered_many_in_one_request(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(300)))

    tally, ring = world.drain()

    assert (tally.delivered, tally.requests, ring) == (300, 1, False)
    assert world.store.waiting() == 0
    assert all(world.insider.lists[f"p{n}@example.com"] == {"vip"} for n in range(300))

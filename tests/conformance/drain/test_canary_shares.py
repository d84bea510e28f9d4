"""What a drain does with its share of a canary: so many are made, the rest stays, others go on."""

from segrelay.worker.batch.batch import CanaryShares
from tests.conformance.drain.world import event, members


def test_a_share_bounds_what_is_rendered_of_its_trigger_and_of_no_other(make_world) -> None:
    world = make_world()
    world.put(*(event(f"e{n}") for n in range(2_000)))
    world.put(*(event(f"x{n}", "vip", "exit") for n in range(2_000)))
    world.canary_shares = CanaryShares(shares={"enter": 25})

    tally, wake = world.drain()

    assert world.rendered["enter"] == 25
    assert world.canary_shares.outcomes == {"enter": {"delivered": 25}}
    assert world.rendered["exit"] > 1_000
    assert wake == "live"
    assert tally.delivered == 25 + world.rendered["exit"]


def test_a_trigger_that_is_held_is_not_read(make_world) -> None:
    world = make_world()
    world.put(event("ada"), event("ben", "vip", "exit"))
    world.canary_shares = CanaryShares(held=frozenset({"enter"}))

    world.drain()

    assert (world.rendered["enter"], world.rendered["exit"]) == (0, 1)


def test_what_needs_no_rendering_takes_nothing_of_a_share(make_world) -> None:
    world = make_world()
    world.put(*(event(f"e{n}", at=5) for n in range(50)))
    world.drain_until_nothing_is_left()
    world.put(*(event(f"e{n}", at=3) for n in range(50)), *(event(f"n{n}") for n in range(50)))
    world.canary_shares = CanaryShares(shares={"enter": 25})

    world.drain()

    assert world.count("skipped") == 50
    assert world.canary_shares.outcomes == {"enter": {"delivered": 25}}


def test_what_beats_another_and_stays_wins_when_it_goes(make_world) -> None:
    world = make_world()
    world.put(event("ada"), event("ben", "vip", "exit", at=1), event("ben", at=2))
    world.canary_shares = CanaryShares(shares={"enter": 1})

    world.drain()
    assert members(world) == {"ada@example.com"}
    world.canary_shares = CanaryShares()
    world.drain_until_nothing_is_left()

    assert members(world) == {"ada@example.com", "ben@example.com"}
    assert world.count("dead") == 0

"""What a trigger does not want any more when it is drained becomes a dead letter."""

from segrelay.worker.contract.triggers import Scope
from segrelay.worker.contract.words import Direction
from tests.conformance.drain.world import World, event, members, reasons

WANTS = Scope("enter", Direction.ENTER, frozenset({"vip"}))
WANTS_GOLD = Scope("enter", Direction.ENTER, frozenset({"gold"}))
WANTS_EXITS = Scope("enter", Direction.EXIT, None)


def mean(world: World, scope: Scope, edition: str) -> None:
    world.scopes = {"enter": scope}
    world.adopt("enter", edition)


def test_an_audience_that_the_trigger_names_no_longer_dies_unwanted(make_world) -> None:
    world = make_world()
    world.put(event("ada"), event("bob", audience="gold"))
    mean(world, WANTS_GOLD, "new")

    world.drain()

    assert reasons(world) == ["unwanted"]
    assert members(world, "gold") == {"bob@example.com"}
    assert world.store.waiting() == 0


def test_the_other_direction_dies_unwanted_however_many_there_are(make_world) -> None:
    world = make_world()
    world.put(*(event(str(number)) for number in range(600)))
    mean(world, WANTS_EXITS, "new")

    world.drain_until_nothing_is_left()

    assert reasons(world) == ["unwanted"] * 600
    assert (world.sendings, world.paused) == ([], {})


def test_a_process_with_an_older_configuration_kills_nothing_that_the_newer_wants(
    make_world,
) -> None:
    world = make_world()
    mean(world, WANTS, "old")
    world.newest["enter"] = "new"
    world.put(event("ada", audience="gold"), event("bob"))

    world.drain()
    assert not world.store.dead_letters
    assert members(world) == {"bob@example.com"}
    mean(world, WANTS_GOLD, "new")
    assert world.due() == "live"
    world.drain()

    assert members(world, "gold") == {"ada@example.com"}
    assert not world.store.dead_letters


def test_an_id_that_got_its_slug_after_the_drain_began_is_wanted(make_world) -> None:
    world = make_world()
    mean(world, WANTS, "new")
    world.scopes_anew = {"enter": Scope("enter", Direction.ENTER, frozenset({"vip", "gold"}))}
    world.put(event("ada", audience="gold"))

    world.drain()

    assert members(world, "gold") == {"ada@example.com"}
    assert not world.store.dead_letters

"""A new template or configuration of a trigger ends the waiting that an older one has caused."""

import pytest

from tests.conformance.drain.fake_insider import Reply, Sending, failed, refused, taken
from tests.conformance.drain.world import World, event, members


def refuses_everything(_: Sending) -> Reply:
    return refused(400, "users.attributes.age must be a number")


def mend(world: World) -> None:
    """Let everything be taken from now on, by a new edition of the trigger."""
    world.responds = taken
    world.adopt("enter", "new")


def wait_long(world: World, edition: str) -> None:
    """Let an edition of a trigger fail until its delivery waits for minutes."""
    world.adopt("enter", edition)
    world.put(event("ada"))
    for _ in range(12):
        world.drain()
        world.pass_seconds(60)
    world.drain()


@pytest.mark.parametrize("answer", [refuses_everything, lambda _: failed(500)])
def test_a_new_edition_ends_the_wait_that_an_older_one_has_caused(make_world, answer) -> None:
    world = make_world(answer)
    wait_long(world, "old")
    tried = len(world.sendings)
    assert world.due() == ""
    world.drain()
    assert len(world.sendings) == tried

    mend(world)

    assert world.due() == "live"
    world.pass_seconds(30)  # a request that failed may still take effect
    world.drain()
    assert members(world) == {"ada@example.com"}
    assert (world.store.retry, world.store.aside) == ({}, {})


def test_an_older_edition_does_not_end_the_wait_of_a_newer_one(make_world) -> None:
    world = make_world(refuses_everything)
    wait_long(world, "new")
    tried = len(world.sendings)

    world.load("enter", "old")
    world.drain()

    assert (len(world.sendings), world.due()) == (tried, "")


def test_what_an_older_edition_writes_after_the_newer_was_adopted_ends_with_it(make_world) -> None:
    world = make_world(refuses_everything)
    world.adopt("enter", "old")
    world.put(event("ada"))
    world.newest["enter"] = "new"  # by another process, while this one has not looked yet
    world.drain()
    world.pass_seconds(60)
    world.drain()

    mend(world)
    world.drain()

    assert members(world) == {"ada@example.com"}


def test_a_new_edition_begins_anew_with_short_waits(make_world) -> None:
    world = make_world(refuses_everything)
    wait_long(world, "old")

    world.adopt("enter", "new")
    world.drain()

    (backoff,) = world.store.aside.values()
    assert (backoff.failures, backoff.edition) == (1, "new")
    assert backoff.not_before_ms <= world.now_ms() + 1_000

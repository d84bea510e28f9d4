"""Events of people who are being renamed, or were, in a world without a network."""

from typing import Any

import orjson

from segrelay.worker.batch.renames import HELD_MS
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.people import Forward, Moving
from tests.conformance.drain.world import event, members

KEY, ELSEWHERE = "email:ada.lovelace@example.com", 9


def _forward(world: Any, moving: Moving) -> None:
    digest = digest_of("email:ada@example.com")
    world.store.put_forward(digest, Forward(moving, KEY, ELSEWHERE, 1).dumps())


def test_what_comes_under_a_former_identity_goes_to_the_new_one(make_world) -> None:
    world = make_world()
    _forward(world, Moving.DONE)
    world.put(event("ada"), event("bob"))

    world.drain()

    (moved,) = world.store.elsewhere[ELSEWHERE]
    assert members(world) == {"bob@example.com"}
    assert moved.header.digest == digest_of(KEY)
    assert orjson.loads(decode_profile(moved.profile))["email"] == "ada.lovelace@example.com"
    assert world.store.waiting() == 0
    assert world.store.counts["accepted|" + moved.trigger] == 1


def test_while_somebody_is_renamed_their_events_wait_and_those_of_others_go(make_world) -> None:
    world = make_world()
    _forward(world, Moving.ASKED)
    world.put(event("ada"), event("bob"))

    world.drain()

    assert members(world) == {"bob@example.com"}
    assert (world.store.waiting(), world.store.elsewhere) == (1, {})
    assert not world.due()


def test_what_waited_for_a_renaming_goes_on_once_it_is_done(make_world) -> None:
    world = make_world()
    _forward(world, Moving.ARRIVING)
    world.put(event("ada"))
    world.drain()
    world.store.end_forwards()

    world.pass_seconds(HELD_MS / 1000 + 0.1)
    world.drain()

    assert members(world) == {"ada@example.com"}


def test_what_cannot_be_read_stays_with_the_former_identity_and_dies_there(make_world) -> None:
    world = make_world()
    _forward(world, Moving.DONE)
    world.put(event("ada"))
    ((entry_id, entry),) = world.store.streams["live|enter"].items()
    world.store.put_entry("live|enter", entry_id, entry.header_text, b"{no json")

    world.drain()

    assert world.store.elsewhere == {}
    assert world.store.waiting() == 0
    assert len(world.store.dead_letters) == 1

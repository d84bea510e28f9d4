"""Refusals, failures and outages: what is halved, what waits, what dies, what pauses."""

import base64
from typing import Any

import pytest
from structlog.testing import capture_logs

from segrelay.worker.contract.events import decode_header
from segrelay.worker.contract.redis.accept import NewDelivery
from tests.conformance.drain.fake_insider import (
    Sending,
    failed,
    refused,
    silent,
    taken,
)
from tests.conformance.drain.world import LATE_SECONDS, dead_letters, event, members


@pytest.mark.parametrize("kind", [lambda _: failed(503), lambda _: silent()])
def test_an_outage_dead_letters_nothing_however_long(make_world, kind: Any) -> None:
    world = make_world()
    world.put(*(event(f"w{n}") for n in range(5)))
    world.drain()
    world.responds = kind
    world.put(
        *(event(f"p{n}") for n in range(50)), *(event(f"x{n}", lane="backfill") for n in range(9))
    )

    for _ in range(60):
        world.drain()
        world.pass_seconds(300)
    world.responds = taken
    requests = len(world.sendings)
    world.drain_until_nothing_is_left()

    assert world.count("dead") == 0
    assert world.store.waiting() == 0
    assert len(members(world)) == 64
    assert requests < 500


def test_refused_credentials_are_logged_as_an_error_and_cost_no_delivery(make_world) -> None:
    world = make_world(lambda _: refused(401))
    world.put(event("ada"))
    with capture_logs() as lines:
        world.drain()
    world.responds = taken
    world.run(world.gate.resume(""))
    world.drain()

    told = [line for line in lines if line["event"] == "request.answered"]
    assert [(line["log_level"], line["trigger"]) for line in told] == [("error", "enter")]
    assert told[0]["destination"] == world.store.keys.destination
    assert (world.count("delivered"), world.count("dead")) == (1, 0)


def test_an_entry_whose_profile_is_no_json_leaves_a_letter_that_can_be_read(make_world) -> None:
    world = make_world()
    good = event("ada", behave="fail")
    world.put(NewDelivery(good.lane, good.trigger, good.header, b"{no json"))

    world.drain()

    header, profile = dead_letters(world)[0]["entry"]
    assert decode_header(base64.b64decode(header)) == good.header
    assert base64.b64decode(profile) == b"{no json"


def test_what_was_beaten_goes_out_where_the_winner_was_refused(make_world) -> None:
    def responds(sending: Sending) -> Any:
        if sending.url.endswith("delete"):
            return taken(sending, {"users.0.identifiers": ["is not right"]})
        return taken(sending)

    world = make_world(responds)
    world.put(event("ada", at=1), event("ada", trigger="exit", at=2))

    world.drain_until_nothing_is_left(seconds=60)

    assert members(world) == {"ada@example.com"}
    assert (world.count("delivered"), world.count("dead")) == (1, 1)


def test_what_comes_meanwhile_waits_in_the_same_drain_until_a_lost_request_is_over(
    make_world,
) -> None:
    world = make_world(lambda s: taken(s) if world.sendings[1:] else silent(applied=True))
    world.limits["slice_seconds"] = 100.0
    world.put(event("ada", at=1))
    world.loop.call_later(1, world.put, event("ada", trigger="exit", at=2))

    world.drain_until_nothing_is_left(seconds=200)

    lost, *_, left = world.sendings
    assert left.at - lost.at > LATE_SECONDS
    assert members(world) == set()


def test_a_failing_trigger_is_tried_with_one_person_until_that_one_goes_through(make_world) -> None:
    world = make_world(lambda s: failed(500) if s.url.endswith("delete") and down else taken(s))
    down = [True]
    world.put(*(event(f"p{n}", "vip", "exit") for n in range(300)))
    world.drain_until_nothing_is_left(seconds=100)
    world.put(*(event(f"p{n}", "new") for n in range(300)))
    world.drain_until_nothing_is_left(seconds=5)

    tried = [len(s.users) for s in world.sendings if s.url.endswith("delete")]
    assert (tried[0], set(tried[1:])) == (300, {1})
    assert world.count("delivered") >= 298

    down.clear()
    world.drain_until_nothing_is_left(seconds=400)
    assert world.count("delivered") == 600
    assert world.count("dead") == 0
    assert len(world.sendings) < 40

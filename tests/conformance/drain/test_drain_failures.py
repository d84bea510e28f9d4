"""Refusals, failures and outages: what is halved, what waits, what dies, what pauses."""

import base64
import math
from dataclasses import replace
from typing import Any

import pytest

from segrelay.worker.contract.events import decode_header
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.destinations.api import Answer
from tests.conformance.drain.fake_insider import (
    Reply,
    Sending,
    failed,
    holds_poison,
    refused,
    silent,
    taken,
)
from tests.conformance.drain.world import dead_letters, event, members


@pytest.mark.parametrize("kind", [lambda _: failed(503), lambda _: silent(), lambda _: failed(500)])
def test_an_outage_dead_letters_nothing_however_long(make_world, kind: Any) -> None:
    world = make_world()
    world.put(*(event(f"w{n}") for n in range(50)))
    world.drain()
    world.responds = kind
    world.put(
        *(event(f"p{n}") for n in range(300)), *(event(f"x{n}", lane="backfill") for n in range(9))
    )

    for _ in range(100):
        world.drain()
        world.pass_seconds(200)
    world.responds = taken
    requests = len(world.sendings)
    world.drain_until_nothing_is_left()

    assert world.count("dead") == 0
    assert world.store.waiting() == 0
    assert len(members(world)) == 359
    assert requests < 500


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


def test_a_breaker_that_one_trigger_opened_lets_the_others_go_on(make_world) -> None:
    world = make_world(lambda s: failed(500) if s.url.endswith("delete") else taken(s))
    world.put(event("first"), event("ada", trigger="exit-event"))
    world.drain()
    world.put(*(event(f"p{n}", trigger="exit") for n in range(3)))
    for _ in range(200):
        world.drain()
        world.pass_seconds(0.5)
        if world.gate_state() == "broken":
            break
    assert world.gate_state() == "broken"
    world.put(*(event(f"q{n}", trigger="exit") for n in range(3)))
    world.put(*(event(f"r{n}", padding="x" * 400_000) for n in range(60)))

    world.drain()

    assert len([m for m in members(world) if m.startswith("r")]) == 60


def test_a_closed_gate_rings_for_nobody(make_world) -> None:
    world = make_world(lambda _: refused(429))
    world.put(*(event(f"p{n}") for n in range(3)))
    wakeups = [world.drain()[1] for _ in range(20)]

    assert wakeups.count(True) <= 2, "a drain that finds the gate closed is not woken at once"
    assert world.store.wakeup == ""


@pytest.mark.parametrize("seconds", [0.5, 1.9], ids=["slow", "slower than a slice"])
def test_a_slow_destination_finds_its_culprit_in_as_few_requests(make_world, seconds) -> None:
    def responds(sending: Sending) -> Any:
        reply = refused(400, "users.email") if holds_poison(sending) else taken(sending)
        return replace(reply, answer_seconds=seconds)

    world = make_world(responds)
    world.put(*(event(f"p{n}") for n in range(617)), event("poison"))
    world.put(*(event(f"q{n}") for n in range(382)))

    world.drain_until_nothing_is_left(seconds=300)

    assert [dead_letter["reason"] for dead_letter in dead_letters(world)] == ["refused"]
    assert len(members(world)) == 999
    assert len(world.sendings) - 1 <= 2 * math.ceil(math.log2(1_000))


def test_a_slow_destination_that_refuses_everything_pauses_the_trigger(make_world) -> None:
    world = make_world(lambda _: replace(refused(400, "unknown attribute"), answer_seconds=0.7))
    world.put(*(event(f"p{n}") for n in range(1_000)))

    world.drain_until_nothing_is_left(seconds=120)

    assert list(world.paused) == ["enter"]
    assert world.count("dead") < 50


def test_a_slow_destination_that_takes_less_is_served_all_the_same(make_world) -> None:
    def responds(sending: Sending) -> Any:
        reply = taken(sending) if len(sending.users) <= 60 else refused(413)
        return replace(reply, answer_seconds=1.0)

    world = make_world(responds)
    world.put(*(event(f"p{n}") for n in range(1_000)))

    world.drain_until_nothing_is_left(seconds=300)

    assert len(members(world)) == 1_000
    assert world.count("dead") == 0


def test_a_403_about_one_body_is_halved_and_stops_nobody_else(make_world) -> None:
    html = Reply(Answer(403, b"<html>blocked</html>", ""), "refused")
    world = make_world(lambda s: html if holds_poison(s) else taken(s))
    world.put(*(event(f"p{n}") for n in range(999)), event("poison"))

    world.drain_until_nothing_is_left()

    assert [dead_letter["reason"] for dead_letter in dead_letters(world)] == ["refused"]
    assert len(members(world)) == 999
    assert world.paused == {}


def test_a_failing_trigger_is_tried_with_one_person_until_that_one_goes_through(make_world) -> None:
    world = make_world(lambda s: failed(500) if s.url.endswith("delete") and down else taken(s))
    down = [True]
    world.put(*(event(f"p{n}", "vip", "exit") for n in range(1_000)))
    world.drain_until_nothing_is_left(seconds=100)
    world.put_now(*(event(f"p{n}", "new") for n in range(1_000)))
    world.drain_until_nothing_is_left(seconds=5)

    tried = [len(s.users) for s in world.sendings if s.url.endswith("delete")]
    assert (tried[0], set(tried[1:])) == (1_000, {1})
    assert world.count("delivered") >= 998

    down.clear()
    world.drain_until_nothing_is_left(seconds=400)
    assert world.count("delivered") == 2_000
    assert world.count("dead") == 0
    assert len(world.sendings) < 40

"""One drain after the other, and what becomes of events, in a world without a network."""

import asyncio
import math
from typing import Any

import orjson
import pytest

from tests.unit.worker.drain_world import (
    LATE_SECONDS,
    Sending,
    World,
    event,
    failed,
    refused,
    silent,
    taken,
)
from worker.contract.accept import NewDelivery
from worker.destinations.api import Answer
from worker.drain import Stop

POISON = "poison@example.com"


def emails(sending: Sending) -> list[str]:
    return [user["identifiers"]["email"] for user in sending.users]


def holds_poison(sending: Sending) -> bool:
    return POISON in emails(sending)


def letters(world: World) -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in world.store.letters.values()]


def members(world: World, audience: str = "vip") -> set[str]:
    return {email for email, slugs in world.insider.lists.items() if audience in slugs}


def test_events_are_delivered_many_in_one_request(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(300)))

    tally, ring = world.drain()

    assert (tally.delivered, tally.requests, ring) == (300, 1, False)
    assert world.store.waiting() == 0
    assert len(members(world)) == 300


def test_up_to_four_requests_are_under_way_at_once(make_world) -> None:
    under_way: list[int] = []

    def responds(sending: Sending) -> Any:
        under_way.append(sum(not s.box for s in sending.process.world.sendings))
        return taken(sending)

    world = make_world(responds)
    padding = "x" * 15_000
    world.put(*(event(f"p{n}", padding=padding) for n in range(1_000)))
    world.drain_until_nothing_is_left()

    assert max(under_way) <= 4
    assert len(members(world)) == 1_000


def test_a_body_never_exceeds_the_size_that_the_api_takes(make_world) -> None:
    sizes: list[int] = []

    def responds(sending: Sending) -> Any:
        sizes.append(len(orjson.dumps(sending.users)))
        return taken(sending)

    world = make_world(responds)
    world.put(*(event(f"p{n}", padding="x" * 200_000) for n in range(60)))
    world.drain_until_nothing_is_left()

    assert max(sizes) < 5_000_000
    assert len(members(world)) == 60


def test_a_size_that_is_refused_splits_until_it_fits(make_world) -> None:
    world = make_world(lambda s: taken(s) if len(s.users) <= 100 else refused(413))
    world.put(*(event(f"p{n}") for n in range(1_000)))

    world.drain_until_nothing_is_left()

    assert len(members(world)) == 1_000
    assert world.count("dead") == 0


@pytest.mark.parametrize("people", [2, 64, 1_000])
def test_a_400_finds_the_culprit_by_halving(make_world, people: int) -> None:
    world = make_world(lambda s: refused(400, "users.email") if holds_poison(s) else taken(s))
    world.put(*(event(f"p{n}") for n in range(people - 1)), event("poison"))

    world.drain_until_nothing_is_left()

    assert [letter["reason"] for letter in letters(world)] == ["refused"]
    assert letters(world)[0]["profile"]["email"] == POISON
    assert len(members(world)) == people - 1
    assert len(world.sendings) - 1 <= 2 * math.ceil(math.log2(people))


def test_a_user_who_is_refused_costs_the_others_nothing(make_world) -> None:
    def responds(sending: Sending) -> Any:
        index = emails(sending).index(POISON)
        return taken(sending, {f"users.{index}.attributes.age": ["is not right"]})

    world = make_world(responds)
    world.put(*(event(f"p{n}") for n in range(500)), event("poison"))

    tally, _ = world.drain()

    assert (tally.delivered, tally.dead, tally.requests) == (500, 1, 1)


def test_a_halving_that_finds_only_400s_of_one_cause_pauses_the_trigger(make_world) -> None:
    world = make_world(
        lambda s: refused(400, "users is wrong") if s.url.endswith("upsert") else taken(s)
    )
    world.put(*(event(f"p{n}") for n in range(1_000)), event("p1", "new", "exit"))

    world.drain_until_nothing_is_left(seconds=60)

    assert list(world.paused) == ["enter"]
    assert world.count("dead") == 0
    assert world.store.waiting() == 1_000
    assert world.store.counts["delivered|exit"] == 1


def test_two_events_that_alone_are_refused_both_die(make_world) -> None:
    world = make_world(lambda s: refused(400, "no"))
    world.put(event("ada"), event("bob"))

    world.drain_until_nothing_is_left(seconds=60)

    assert world.count("dead") == 2


def test_five_hundred_deaths_of_one_cause_pause_the_trigger(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}", behave="fail") for n in range(1_500)), event("ada", "new", "exit"))

    world.drain_until_nothing_is_left(seconds=60)

    assert list(world.paused) == ["enter"]
    assert world.store.counts["dead|enter|template_error"] == 500
    assert world.store.waiting() == 1_000
    assert world.store.counts["delivered|exit"] == 1


def test_deaths_between_deliveries_pause_nothing(make_world) -> None:
    world = make_world()
    for first in range(0, 900, 300):
        world.put(*(event(f"p{n}", behave="fail") for n in range(first, first + 300)))
        world.put(event(f"good{first}"))
        world.drain_until_nothing_is_left(seconds=60)

    assert world.paused == {}
    assert world.count("dead") == 900


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


def test_an_event_that_fails_alone_dies_once_others_went_through_meanwhile(make_world) -> None:
    world = make_world(lambda s: failed(500) if holds_poison(s) else taken(s))
    world.put(event("poison"), *(event(f"p{n}") for n in range(20)))
    for n in range(200):
        world.put(event(f"later{n}"))
        world.drain()
        world.pass_seconds(40)

    assert [letter["reason"] for letter in letters(world)] == ["failed"]
    assert letters(world)[0]["profile"]["email"] == POISON
    alone = [s for s in world.sendings if emails(s) == [POISON]]
    assert len(alone) >= 5
    assert len(members(world)) == 220


def test_what_fails_alone_without_others_never_dies(make_world) -> None:
    world = make_world(lambda _: failed(500))
    world.put(event("poison"))
    for _ in range(300):
        world.drain()
        world.pass_seconds(400)

    assert world.count("dead") == 0
    assert world.store.waiting() == 1


@pytest.mark.parametrize(
    ("header", "profile"),
    [
        (b"nonsense", b"{}"),
        (b"[2]", b"{}"),
        (b"", b""),
        (b'[1,"00","vip","enter",1,0,1,0]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter","1",0,1,0]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter",-1,0,1,0]', b"{}"),
        (b'[1,"00112233445566778899",7,"enter",1,0,1,0]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter",1.5,0,1,0]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter",99999999999999999999,0,1,0]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter",1,0,"x",[]]', b"{}"),
        (b'[1,"00112233445566778899","vip","enter",1,0,1,0]', b"\x78broken"),
    ],
)
def test_an_unreadable_entry_dies_and_costs_its_neighbours_nothing(
    make_world, header: bytes, profile: bytes
) -> None:
    world = make_world()
    world.put(event("ada"), event("bob"), event("cyd"))
    entries = world.store.streams["live|enter"]
    middle = list(entries)[1]
    entries[middle] = entries[middle]._replace(header=header, profile=profile)

    tally, _ = world.drain()

    assert (tally.delivered, tally.dead) == (2, 1)
    assert letters(world)[0]["reason"] == "unreadable"


def test_an_entry_whose_profile_is_no_json_leaves_a_letter_that_can_be_read(make_world) -> None:
    world = make_world()
    good = event("ada", behave="fail")
    world.put(NewDelivery(good.lane, good.trigger, good.header, b"{no json"))

    world.drain()

    assert letters(world)[0]["profile"] == {"unreadable": b"{no json".hex()}


def test_what_waits_for_an_open_note_is_passed_over_and_held(make_world) -> None:
    world = make_world(lambda s: failed(502) if s.at < 1_001 and holds_poison(s) else taken(s))
    world.put(event("poison", at=1))
    world.drain()
    world.put(*(event("poison", f"a{n}", at=2) for n in range(3)), event("ada"))
    world.pass_seconds(2)

    world.drain()
    world.drain()

    assert members(world) == {POISON, "ada@example.com"}
    assert world.store.waiting() == 3
    assert not world.store.is_due(frozenset())
    world.pass_seconds(LATE_SECONDS)
    world.drain()
    assert world.store.waiting() == 0


def test_within_a_batch_only_the_newest_is_sent(make_world) -> None:
    world = make_world()
    world.put(
        event("ada", at=1), event("ada", trigger="exit", at=2), event("ada", at=3), event("bob")
    )

    tally, _ = world.drain()

    assert (tally.delivered, tally.skipped) == (2, 2)
    assert members(world) == {"ada@example.com", "bob@example.com"}
    assert all(s.url.endswith("upsert") for s in world.sendings)


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


def test_an_asserted_event_is_skipped_and_its_neighbours_go(make_world) -> None:
    world = make_world()
    world.put(event("ada", behave="assert"), event("bob"))

    tally, _ = world.drain()

    assert (tally.delivered, tally.skipped, tally.dead) == (1, 1, 0)
    assert world.store.counts["skipped|enter|asserted"] == 1


def test_on_ambiguous_dead_letter_sends_nothing_twice(make_world) -> None:
    world = make_world(
        lambda s: failed(502, applied=True) if holds_poison(s) else taken(s),
        on_ambiguous="dead_letter",
    )
    world.put(event("poison"))
    world.drain()
    world.put(event("poison", "new", at=5), event("ada"))
    world.drain()

    assert [letter["reason"] for letter in letters(world)] == ["ambiguous"]
    assert world.store.waiting() == 1, "the other event of the person waits for the open note"
    assert len([s for s in world.sendings if holds_poison(s)]) == 1


def test_on_ambiguous_dead_letter_holds_for_a_worker_that_vanished(make_world) -> None:
    world = make_world(on_ambiguous="dead_letter")
    world.put(event("ada"))
    killed_after_sending = next(n for n in range(1, 60) if _dies_after_sending(make_world, n))

    assert world.drain(plan={killed_after_sending: "kill"}) is None
    world.pass_seconds(11)
    world.drain()

    assert [letter["reason"] for letter in letters(world)] == ["ambiguous"]
    assert len(world.sendings) == 1


def _dies_after_sending(make_world, step: int) -> bool:
    world = make_world()
    world.put(event("ada"))
    world.drain(plan={step: "kill"})
    return bool(world.sendings) and world.store.waiting() == 1


@pytest.mark.parametrize("step", range(1, 30))
def test_killed_at_any_step_everything_still_arrives(make_world, step: int) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(5)), event("p1", "new", "exit"))

    world.drain(plan={step: "kill"})
    world.pass_seconds(11)
    world.drain_until_nothing_is_left()

    assert len(members(world)) == 5
    assert world.count("delivered") == 6


def test_a_vanished_workers_events_are_counted_as_sent_again(make_world) -> None:
    step = next(n for n in range(1, 60) if _dies_after_sending(make_world, n))
    world = make_world()
    world.put(event("ada"))
    world.drain(plan={step: "kill"})
    world.pass_seconds(11)

    world.drain()

    assert world.store.counts["resent|enter"] == 1


def test_what_got_no_answer_is_counted_as_sent_again_even_much_later(make_world) -> None:
    world = make_world(lambda s: failed(502) if s.at < 1_001 else taken(s))
    world.put(event("ada"))
    world.drain()
    world.pass_seconds(400)

    world.drain()

    assert world.store.counts["resent|enter"] == 1


def test_an_event_that_kills_its_process_dies_alone(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(20)), event("poison", behave="kill"))

    assert world.drain() is None
    world.pass_seconds(11)
    world.drain_until_nothing_is_left(seconds=60)

    assert [letter["reason"] for letter in letters(world)] == ["killed_worker"]
    assert len(members(world)) == 20


def test_a_template_that_is_slower_than_a_slice_still_delivers(make_world) -> None:
    world = make_world()
    world.render_seconds = 5.0
    world.put(*(event(f"p{n}") for n in range(300)))

    world.drain()

    assert len(members(world)) == 300


def test_a_breaker_that_one_trigger_opened_lets_the_others_go_on(make_world) -> None:
    world = make_world(lambda s: failed(500) if s.url.endswith("delete") else taken(s))
    world.put(event("first"), event("ada", trigger="exit-event"))
    world.drain()
    world.put(*(event(f"p{n}", trigger="exit") for n in range(3)))
    for _ in range(200):
        world.drain()
        world.pass_seconds(0.5)
        if world.gate.status().state == "broken":
            break
    assert world.gate.status().state == "broken"
    world.put(*(event(f"q{n}", trigger="exit") for n in range(3)))
    world.put(*(event(f"r{n}", padding="x" * 400_000) for n in range(60)))

    world.drain()

    assert len([m for m in members(world) if m.startswith("r")]) == 60


def test_a_closed_gate_rings_for_nobody(make_world) -> None:
    world = make_world(lambda _: refused(429))
    world.put(*(event(f"p{n}") for n in range(3)))
    rings = []
    for _ in range(20):
        rings.append(world.drain()[1])

    assert rings.count(True) <= 2, "a drain that finds the gate closed is not rung for at once"
    assert world.store.bell == ""


def test_told_to_stop_a_drain_ends_its_requests_and_gives_the_lease_back(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(3)))

    tally, _ = world.drain(stop=Stop(told_at_seconds=1.0))

    assert tally.requests == 0
    assert world.store.token == ""
    assert world.store.waiting() == 3


def test_a_request_that_outlives_the_time_to_stop_is_cut_and_becomes_an_open_note(
    make_world,
) -> None:
    stop = Stop()

    def responds(sending: Sending) -> Any:
        stop.told_at_seconds = sending.at
        return silent(applied=True)

    world = make_world(responds)
    world.put(event("ada"))
    begun = world.loop.time()

    world.drain(stop=stop)

    assert world.loop.time() - begun < 5
    assert len(world.store.open) == 1
    assert world.store.token == ""


def test_a_backfills_list_that_would_be_overwritten_is_corrected(make_world) -> None:
    world = make_world()
    world.put(event("ada", "new", "overwrite", at=9, segments=["new"]))
    world.drain()
    world.put(event("ada", "vip", "overwrite", at=5, segments=["vip"], lane="backfill"))

    world.drain()

    assert world.insider.lists["ada@example.com"] == {"new", "vip"}


def test_a_state_event_is_sent_where_a_whole_list_was_told_since(make_world) -> None:
    world = make_world()
    world.put(event("ada", "vip", "exit", at=3))
    world.drain()
    world.put(event("ada", "new", "overwrite", at=4, segments=["new", "vip"]))
    world.drain()
    assert "vip" in world.insider.lists["ada@example.com"]
    world.put(event("ada", "vip", "exit", at=5, state=True))

    world.drain()

    assert world.insider.lists["ada@example.com"] == {"new"}


def test_a_state_event_that_tells_what_is_known_is_not_sent(make_world) -> None:
    world = make_world()
    world.put(event("ada", at=3))
    world.drain()
    world.put(event("ada", at=5, state=True), event("ada", at=6, state=True))

    tally, _ = world.drain()

    assert (tally.skipped, tally.requests) == (2, 0)
    assert world.store.counts["skipped|enter|already_there"] >= 1


def test_an_answer_that_cannot_be_read_leaves_the_note_open(make_world) -> None:
    def responds(sending: Sending) -> Any:
        reply = taken(sending)
        reply.answer, reply.outcome = Answer(200, b"<html>"), "unsure"
        return reply

    world = make_world(responds)
    world.put(event("ada"))

    world.drain()

    assert len(world.store.open) == 1
    assert world.store.waiting() == 1


@pytest.mark.parametrize("triggers", [("exit", "enter"), ("exit", "overwrite"), ("enter", "exit")])
def test_a_worker_that_lost_its_lease_repairs_what_it_may_have_undone(
    make_world, triggers: tuple[str, str]
) -> None:
    stale, newer = triggers
    world = make_world(lambda s: taken(s))
    world.put(event("ada", "new", at=1))
    world.drain()
    world.put(event("ada", trigger=stale, at=2, padding="old"))
    step = next(n for n in range(1, 60) if _dies_after_sending(make_world, n))

    async def others() -> None:
        await asyncio.sleep(11)
        await world.a_drain({})
        world.put_now(event("ada", trigger=newer, at=9, padding="new", segments=["new", "vip"]))
        world.put_now(event("ada", "far", at=5, padding="new"))
        await asyncio.sleep(LATE_SECONDS)
        await world.a_drain({})
        await world.a_drain({})

    async def both() -> None:
        await asyncio.gather(world.a_drain({step: 60.0}), others())

    world.run(both())
    before = len(world.sendings)
    world.pass_seconds(LATE_SECONDS)
    world.insider.lists["ada@example.com"] ^= {"vip"}
    world.drain_until_nothing_is_left(seconds=100)

    expected = {"new", "far"} | ({"vip"} if newer != "exit" else set())
    assert world.insider.lists["ada@example.com"] == expected
    repairs = world.sendings[before:]
    assert repairs
    assert "old" not in str([s.users for s in repairs])

"""Workers that vanish or are told to stop, and requests without a sure answer."""

import asyncio

import pytest

from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.core.gate import Open
from tests.conformance.drain.fake_insider import (
    POISON,
    emails,
    failed,
    holds_poison,
    silent,
    taken,
)
from tests.conformance.drain.world import LATE_SECONDS, dead_letters, event, members, reasons
from tests.simulation.virtual_redis import at_once


def test_an_event_that_fails_alone_dies_once_others_went_through_meanwhile(make_world) -> None:
    world = make_world(lambda s: failed(500) if holds_poison(s) else taken(s))
    world.put(event("poison"), *(event(f"p{n}") for n in range(20)))
    for n in range(60):
        world.put(event(f"later{n}"))
        world.drain()
        world.pass_seconds(40)

    assert reasons(world) == ["failed"]
    assert dead_letters(world)[0]["profile"]["email"] == POISON
    alone = [s for s in world.sendings if emails(s) == [POISON]]
    assert len(alone) >= 5
    assert len(members(world)) == 80


def test_a_vanished_workers_intent_leaves_a_ledger_of_another_version_alone(make_world) -> None:
    step = next(n for n in range(1, 60) if _dies_after_sending(make_world, n))
    world = make_world()
    world.put(event("ada"))
    world.drain(plan={step: "kill"})
    digest = digest_of("email:ada@example.com")
    world.store.put_ledger(digest, b"\x02of another version")
    world.pass_seconds(11)

    world.drain()

    assert world.store.ledger(digest) == b"\x02of another version"
    assert len(world.store.open) == 1


def test_on_ambiguous_dead_letter_sends_nothing_twice(make_world) -> None:
    world = make_world(
        lambda s: failed(502, applied=True) if holds_poison(s) else taken(s),
        on_ambiguous="dead_letter",
    )
    world.put(event("poison"))
    world.drain()
    world.put(event("poison", "new", at=5), event("ada"))
    world.drain()

    assert reasons(world) == ["ambiguous"]
    assert world.store.waiting() == 1, "the other event of the person waits for the intent in doubt"
    assert len([s for s in world.sendings if holds_poison(s)]) == 1


def test_on_ambiguous_dead_letter_holds_while_the_trigger_of_a_vanished_worker_is_paused(
    make_world,
) -> None:
    step = next(n for n in range(1, 60) if _dies_after_sending(make_world, n))
    world = make_world(on_ambiguous="dead_letter")
    world.put(event("ada"))
    assert world.drain(plan={step: "kill"}) is None
    world.paused["enter"] = "by hand"
    for _ in range(10):
        world.put(event("bob", trigger="exit", at=world.now_ms() // 1000))
        world.pass_seconds(11)
        world.drain()
    assert world.store.open == {}
    world.paused.clear()

    world.put(event("ada", "new"))
    world.drain_until_nothing_is_left()

    assert reasons(world) == ["ambiguous"]
    assert [s.users for s in world.sendings if "ada" in str(s.users)] != []
    assert world.count("delivered") == 11


def test_what_a_person_replayed_is_sent_and_then_in_doubt_once_more(make_world) -> None:
    world = make_world(lambda _: failed(502, applied=True), on_ambiguous="dead_letter")
    for replays in range(3):
        world.put(_replayed(event("ada"), replays))
        world.drain_until_nothing_is_left(seconds=100)
        # The same once more, without a person: from the stream of another lane.
        world.put(_replayed(event("ada", lane="backfill"), replays))
        world.drain_until_nothing_is_left(seconds=100)

    assert len(world.sendings) == 3
    assert len(world.store.dead_letters) == 6


def _replayed(new: NewDelivery, times: int) -> NewDelivery:
    return new._replace(header=new.header._replace(replays=times))


def _dies_after_sending(make_world, step: int) -> bool:
    world = make_world()
    world.put(event("ada"))
    world.drain(plan={step: "kill"})
    return bool(world.sendings) and world.store.waiting() == 1


def test_an_event_that_kills_its_process_dies_alone(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(20)), event("poison", behave="kill"))

    assert world.drain() is None
    world.pass_seconds(11)
    world.put(event("ada"))
    world.render_seconds = 1.0
    world.drain()

    assert reasons(world) == ["killed_worker"]
    assert dead_letters(world)[0]["status"] == 0
    assert len(members(world)) == 21
    assert not at_once(world.partition().take()).rendering, "who went through is suspect no more"


def test_told_to_stop_a_drain_ends_its_requests_and_gives_the_lease_back(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}") for n in range(3)))

    tally, _ = world.drain(stop=Stop(told_at_seconds=1.0))

    assert tally.requests == 0
    assert world.store.token == ""
    assert world.store.waiting() == 3


@pytest.mark.parametrize("triggers", [("exit", "overwrite"), ("enter", "exit")])
@pytest.mark.parametrize("steps_later", [0, 1], ids=["unanswered", "answered"])
def test_a_worker_that_lost_its_lease_repairs_what_it_may_have_undone(
    make_world, triggers: tuple[str, str], steps_later: int
) -> None:
    stale, newer = triggers
    world = make_world(taken)
    world.put(event("ada", "new", at=1))
    world.drain()
    world.put(event("ada", trigger=stale, at=2, padding="old"))
    step = next(n for n in range(1, 60) if _dies_after_sending(make_world, n))

    async def others() -> None:
        await asyncio.sleep(11)
        await world.a_drain({})
        world.put(event("ada", trigger=newer, at=9, padding="new", segments=["new", "vip"]))
        world.put(event("ada", "far", at=5, padding="new"))
        await asyncio.sleep(LATE_SECONDS)
        await world.a_drain({})
        await world.a_drain({})

    async def both() -> None:
        await asyncio.gather(world.a_drain({step + steps_later: 60.0}), others())

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


@pytest.mark.parametrize(("on_ambiguous", "delivered"), [("resend", 10), ("dead_letter", 0)])
def test_a_request_that_outlives_the_time_to_stop_is_cut_and_counts_no_failure(
    make_world, on_ambiguous: str, delivered: int
) -> None:
    world = make_world(lambda _: silent(applied=True), on_ambiguous=on_ambiguous)
    world.put(*(event(f"p{n}") for n in range(10)))
    stop = Stop()
    begun = world.loop.time()
    world.loop.call_later(0.5, lambda: setattr(stop, "told_at_seconds", world.loop.time()))

    world.drain(stop=stop)

    assert world.loop.time() - begun < 5
    assert world.store.token == ""
    assert len(world.sendings) == 1
    assert (world.store.aside, world.store.retry) == ({}, {})
    assert len(world.store.open) == 1
    assert world.gate_fields().get("failures", "0") == "0"
    world.responds = taken
    world.drain()
    assert (world.count("delivered"), len(dead_letters(world))) == (delivered, 10 - delivered)


def test_a_slow_disk_does_not_keep_everything_from_being_sent(make_world) -> None:
    world = make_world()
    world.intent_seconds = 1.2
    world.put(*(event(f"p{n}") for n in range(10)))

    tally, _ = world.drain()

    assert (tally.delivered, tally.requests) == (10, 1)
    assert world.store.intents == {}


def test_slots_that_have_passed_when_redis_answers_end_a_drain_with_a_word(make_world) -> None:
    world = make_world()
    world.book_seconds = 1.2
    world.put(event("ada"))

    tally, wake = world.drain()

    assert (tally.requests, tally.ended, wake) == (0, "redis_slow", "")
    world.book_seconds = 0.0
    world.drain()
    assert world.count("delivered") == 1


def test_a_lease_that_lapsed_while_the_connection_was_made_sends_nothing(make_world) -> None:
    """The look for a lost lease comes every 0.2 s: what is written in between must not be."""
    world = make_world()
    world.run(world.gate.resume("enter"))
    world.put(event("ada"))
    world.lapses_when_connected = True
    world.limits["slice_seconds"] = 0.05

    world.drain()

    assert world.sendings == []
    assert world.run(world.gate.look(["enter"])) == {"enter": Open(probe=True)}
    world.lapses_when_connected = False
    world.drain_until_nothing_is_left(seconds=120)
    assert len(world.sendings) == world.count("delivered") == 1

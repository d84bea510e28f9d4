"""Live work is delivered while a backfill's requests are under way; nobody's events overtake."""

from dataclasses import replace
from typing import Any

import pytest

from segrelay.worker.destinations.insider.api import InsiderApi
from tests.conformance.drain.fake_insider import Reply, Sending, failed, taken
from tests.conformance.drain.world import World, event, members

ANSWER_SECONDS = 4.0
PEOPLE = 20


def is_live(sending: Sending) -> bool:
    return all(position.startswith("live|") for position in sending.positions)


def answers_a_backfill_late(sending: Sending) -> Reply:
    reply = taken(sending)
    reply.answer_seconds = 0.02 if is_live(sending) else ANSWER_SECONDS
    return reply


def with_a_backfill(make_world: Any, responds: Any = answers_a_backfill_late) -> World:
    world = make_world(responds)
    world.put(*(event(f"p{n}", lane="backfill") for n in range(PEOPLE)))
    return world


def comes(world: World, *events: Any, after: float = 1.0) -> None:
    """Let live events come while the backfill's request is under way, with a call for them."""

    def come() -> None:
        world.put_now(*events)
        world.live_calls += 1

    world.loop.call_later(after, come)


def seconds_until_sent(world: World, which: int) -> float:
    return round(world.sendings[which].at - world.sendings[0].at, 3)


def test_a_live_event_does_not_wait_for_the_requests_of_a_backfill(make_world) -> None:
    world = with_a_backfill(make_world)
    comes(world, event("ada"))
    comes(world, event("bob"), after=2.0)

    tally, wake = world.drain()

    assert [len(sending.positions) for sending in world.sendings] == [PEOPLE, 1, 1]
    assert 1.0 <= seconds_until_sent(world, 1) < 1.1
    assert 2.0 <= seconds_until_sent(world, 2) < 2.1
    assert (tally.delivered, wake) == (PEOPLE + 2, "")
    assert not world.store.client.exists(world.store.keys.intents)


def test_a_live_event_of_a_person_of_the_backfill_waits_for_their_request(make_world) -> None:
    world = with_a_backfill(make_world)
    comes(world, event("p3", trigger="exit", at=2))

    tally, _ = world.drain()

    assert seconds_until_sent(world, 1) >= ANSWER_SECONDS
    assert tally.delivered == PEOPLE + 1
    assert "p3@example.com" not in members(world)


def test_a_live_event_of_a_person_whose_backfill_is_not_sent_yet_waits_for_it(make_world) -> None:
    def answers_the_first_soon(sending: Sending) -> Reply:
        reply = answers_a_backfill_late(sending)
        reply.answer_seconds = 1.0 if len(world.sendings) == 1 else ANSWER_SECONDS
        return reply

    world = make_world(answers_the_first_soon, api=replace(InsiderApi(), max_users=5))
    world.limits = replace(world.limits, in_flight=2, slice_seconds=60.0)
    world.put(*(event(f"p{n}", lane="backfill") for n in range(PEOPLE)))
    last = f"p{PEOPLE - 1}"
    world.loop.call_later(0.5, lambda: world.put_now(event(last, trigger="exit", at=2)))

    world.drain_until_nothing_is_left()

    assert f"{last}@example.com" not in members(world)
    assert len(members(world)) == PEOPLE - 1


def test_people_who_are_one_person_there_are_not_sent_at_once(make_world) -> None:
    world = with_a_backfill(make_world)
    first, other = event("p3"), event("ada")
    # Another key to us, the same email to the destination.
    comes(world, other._replace(profile=first.profile))

    tally, _ = world.drain()

    assert seconds_until_sent(world, 1) >= ANSWER_SECONDS
    assert tally.delivered == PEOPLE + 1
    assert world.store.counts["shared_identity|enter"] == 1


@pytest.mark.parametrize("behave", ["apart", "kill"])
def test_what_could_end_the_process_is_not_rendered_beside_requests(
    make_world, behave: str
) -> None:
    world = with_a_backfill(make_world)
    comes(world, event("ada", behave=behave))

    world.drain_until_nothing_is_left()

    assert world.sendings[0].box["outcome"] == "taken"
    assert world.count("delivered") >= PEOPLE
    assert len(world.by_position) == sum(map(len, world.by_position.values())), "nobody twice"


def test_no_more_requests_are_under_way_than_a_drain_may_have(make_world) -> None:
    world = with_a_backfill(make_world)
    world.limits = replace(world.limits, in_flight=1)
    comes(world, event("ada"))

    world.drain()

    assert seconds_until_sent(world, 1) >= ANSWER_SECONDS


def test_a_backfill_goes_on_behind_live_work(make_world) -> None:
    world = with_a_backfill(make_world)
    world.limits = replace(world.limits, batch_entries=PEOPLE, slice_seconds=60.0)
    world.put(*(event(f"q{n}", lane="backfill") for n in range(3 * PEOPLE)))
    comes(world, event("ada"))

    tally, wake = world.drain()

    assert (tally.delivered, tally.requests, wake) == (4 * PEOPLE + 1, 5, "")
    assert (world.rendered + world.rendered_ahead).total() == 4 * PEOPLE + 1


def test_what_was_prepared_waits_for_people_of_live_work_that_is_in_doubt_since(make_world) -> None:
    def fails(sending: Sending) -> Reply:
        is_down = is_live(sending) and not world.tallies
        return failed(applied=True) if is_down else answers_a_backfill_late(sending)

    world = with_a_backfill(make_world, fails)
    world.limits = replace(world.limits, batch_entries=PEOPLE, slice_seconds=60.0)
    world.put(*(event(f"q{n}", lane="backfill") for n in range(PEOPLE // 2)))
    comes(world, event("q3", trigger="exit", at=2))

    world.drain()

    assert world.rendered_ahead["enter"] == PEOPLE // 2, "it was prepared"
    assert world.count("delivered") == PEOPLE + PEOPLE // 2 - 1
    world.drain_until_nothing_is_left()
    assert len(members(world)) == PEOPLE + PEOPLE // 2 - 1
    assert "q3@example.com" not in members(world)

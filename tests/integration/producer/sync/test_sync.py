"""A sync against Lytics' stand-in and a real Redis, step by step."""

import pytest

from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.producer.sync.store import Phase
from segrelay.sandbox.lytics.account import audience_id
from segrelay.worker.contract import keys
from segrelay.worker.errors import LyticsRefused, UsageWrong
from tests.integration.producer.sync_world import CHANGE, person


def flags(world):
    """Return lanes and triggers of what waits, whether it is a state, and starts no journeys."""
    waiting = world.waiting()
    return {(one.lane, one.trigger, one.header.state, one.header.skip_hook) for one in waiting}


def test_the_first_run_tells_of_every_member_without_journeys_and_the_next_of_nobody(world):
    world.people(*(person(n, "vip") for n in range(250)), person(900))

    run = world.run()

    assert (run.phase, run.rows, run.entered, run.left) == (Phase.IDLE, 250, 250, 0)
    assert world.deliveries() == sorted(("enter", f"p{n}@example.com") for n in range(250))
    assert flags(world) == {("backfill", "insider-enter", True, True)}
    world.clear()
    assert world.run(small_steps=True).rows == 250
    assert world.deliveries() == []


def test_a_later_run_tells_who_joined_and_who_left(world):
    world.members(250, person(900))
    world.move(900, "enter")
    world.moves("exit", (7, 8))

    run = world.run()

    assert (run.entered, run.left) == (1, 2)
    assert world.deliveries() == [
        ("enter", "p900@example.com"), ("exit", "p7@example.com"), ("exit", "p8@example.com"),
    ]  # fmt: skip
    assert flags(world) == {
        ("live", "insider-enter", True, False), ("live", "insider-exit", True, False),
    }  # fmt: skip


def test_later_runs_are_newer_even_within_a_second(world):
    world.people(person(1, "vip"))

    times = [world.run().at_us for _ in range(5)]

    assert times == sorted(set(times))


def test_of_two_steps_at_once_the_second_does_nothing(world):
    assert world.syncing().store.take()

    step = world.syncing().step(forced=True)

    assert not step.taken


def test_a_destination_that_was_added_later_gets_all_and_the_others_nothing(world):
    world.members(120)
    world.configure(destinations=("insider", "second"))

    world.run()

    assert flags(world) == {("backfill", "second-enter", True, True)}
    assert len(world.deliveries()) == 120


def test_a_change_of_what_is_exported_is_told_once(world):
    world.configure(CHANGE, on_change=True)
    world.people(*(person(n, "vip", first_name="Ann", score=1) for n in range(120)))
    world.run()
    world.clear()
    world.people(person(3, "vip", first_name="Anna"), person(4, "vip", score=2))

    run = world.run()
    world.run()

    assert run.changed == 1
    assert world.deliveries() == [("change", "p3@example.com")]
    assert flags(world) == {("live", "changed", False, False)}


def test_another_audience_under_the_same_name_is_refused(world):
    world.people(person(1, "vip"))
    world.run()
    syncing = world.syncing(find_audience=lambda: "other")

    with pytest.raises(UsageWrong, match="sync reset vip"):
        syncing.step(forced=True)
    assert "reset" in syncing.store.peek().problem


def test_rows_without_an_identity_are_kept_once(world):
    world.people(*(person(n, "vip", email="") for n in range(120)), person(500, "vip"))

    runs = [world.run() for _ in range(2)]

    assert [(run.unplaced, run.phase) for run in runs] == [(120, Phase.IDLE)] * 2
    assert Quarantine(world.client).totals().records == 100


def test_an_outage_ends_the_step_and_the_next_goes_on(world):
    world.people(*(person(n, "vip") for n in range(250)))
    world.switch(error_shares={"503": 1.0}, retry_after_seconds=60)

    step = world.syncing().step(forced=True)
    world.switch(error_shares={}, retry_after_seconds=1)

    assert step.wait_seconds > 0
    assert world.run().entered == 250


def test_a_refused_token_is_told_and_tried_again_later(world):
    world.switch(token="another")
    syncing = world.syncing()

    with pytest.raises(LyticsRefused):
        syncing.step(forced=True)

    assert syncing.store.peek().failures == 1
    assert syncing.store.peek().next_ms > syncing.store.now_ms() + 30_000


VIP_ID = audience_id("vip")


def ids_of(world):
    """Return the ids of the audience in all events that wait."""
    return {one.profile["segment_events"][0].get("id") for one in world.waiting()}


def test_the_id_that_is_known_is_in_the_entrances_and_exits_of_a_sync(world):
    world.client.hset(keys.AUDIENCES, VIP_ID, "vip")
    world.people(*(person(n, "vip", "all", "news") for n in range(20)), person(20, "vip"))
    world.run()
    world.move(7, "exit")

    run = world.run()

    assert (run.audience, run.left) == ("vip", 1)
    assert len(world.deliveries()) == 22
    assert ids_of(world) == {VIP_ID}


def test_an_id_whose_slug_was_not_told_is_refused_until_it_is(world):
    world.configure(audience=VIP_ID)
    world.people(person(1, "vip"))

    with pytest.raises(UsageWrong, match="slug is not known yet"):
        world.run()
    waits = world.syncing().step()
    problem = world.syncing().store.peek().problem
    world.client.hset(keys.AUDIENCES, VIP_ID, "vip")
    world.configure(audience=VIP_ID)

    assert waits.line == "nothing is due"
    assert "slug is not known yet" in problem
    assert world.run().audience == "vip"

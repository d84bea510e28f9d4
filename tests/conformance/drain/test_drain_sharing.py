"""Requests that several triggers share, and a trigger in trouble, which goes alone."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from segrelay.worker.contract.words import Direction
from segrelay.worker.core.verdicts import Accepted
from segrelay.worker.destinations.insider.api import InsiderApi
from tests.conformance.drain.fake_insider import (
    UPSERT,
    Reply,
    Sending,
    failed,
    refused,
    silent,
    taken,
)
from tests.conformance.drain.world import World, event, members

NAMES = [f"t{number}" for number in range(40)]
BAD = "t7"


def triggers_of(sending: Sending) -> Counter[str]:
    return Counter(position.split("|")[1] for position in sending.positions)


def sharing(make_world: Any, responds: Any = taken) -> World:
    return make_world(responds, triggers=dict.fromkeys(NAMES, (Direction.ENTER, UPSERT)))


def put_some(world: World, each: int = 5, *, who: str = "p", names: list[str] = NAMES) -> None:
    """Put so many events of each trigger, in turns."""
    world.put(*(event(f"{who}{n}-{name}", name, name) for n in range(each) for name in names))


def test_what_shares_a_url_shares_a_request_whichever_trigger_it_is_of(make_world) -> None:
    world = sharing(make_world)
    put_some(world)

    tally, _ = world.drain()

    assert (tally.delivered, tally.requests) == (200, 1)
    assert {world.store.counts[f"delivered|{name}"] for name in NAMES} == {5}
    assert world.count("requests") == 1
    assert {f"ok|{name}" for name in NAMES} <= world.gate_fields().keys()
    assert world.rendered == {"enter": 200}


def bad_is_refused(sending: Sending) -> Reply:
    return refused(400, "unknown attribute") if BAD in triggers_of(sending) else taken(sending)


def test_a_trigger_of_which_everything_is_refused_costs_the_others_next_to_nothing(
    make_world,
) -> None:
    world = sharing(make_world, bad_is_refused)
    put_some(world, 20)

    world.drain_until_nothing_is_left(seconds=30)

    assert world.count("dead") == 0
    assert len(members(world, "t6")) == 20
    assert world.count("delivered") == 20 * (len(NAMES) - 1)
    assert set(world.paused) | set(world.store.retry) == {BAD}
    with_others = [s for s in world.sendings if BAD in triggers_of(s) and len(triggers_of(s)) > 1]
    assert len(with_others) <= math.ceil(math.log2(len(NAMES))) + 1


def test_of_a_shared_body_only_who_is_to_blame_is_buried(make_world) -> None:
    def responds(sending: Sending) -> Reply:
        blamed = any("p3-t7@" in user["identifiers"]["email"] for user in sending.users)
        return refused(400, "email") if blamed else taken(sending)

    world = sharing(make_world, responds)
    put_some(world, 20)

    world.drain_until_nothing_is_left(seconds=60)

    assert (world.count("delivered"), world.count("dead")) == (799, 1)
    assert world.store.counts[f"dead|{BAD}|refused"] == 1
    assert world.paused == {}


@pytest.mark.parametrize("answer", [failed(500), failed(502, applied=True), silent(applied=True)])
def test_after_an_unsure_answer_each_trigger_waits_for_itself_and_all_is_delivered(
    make_world, answer: Reply
) -> None:
    world = sharing(make_world, lambda _: answer)
    put_some(world, 2, names=NAMES[:4])

    world.drain()

    assert set(world.store.retry) == set(NAMES[:4])
    world.responds = taken
    world.drain_until_nothing_is_left(seconds=300)
    assert world.count("delivered") == 8
    assert world.count("unanswered") == 1
    assert {world.store.counts[f"resent|{name}"] for name in NAMES[:4]} == {2}
    assert world.store.retry == {}


def test_a_trigger_that_waits_goes_alone_and_the_others_share(make_world) -> None:
    world = sharing(make_world, lambda s: failed(500) if BAD in triggers_of(s) else taken(s))
    put_some(world, 1, names=[BAD])
    world.drain()
    put_some(world, 5, who="q")
    world.pass_seconds(2)

    world.drain_until_nothing_is_left(seconds=20)

    assert world.count("delivered") == 5 * (len(NAMES) - 1)
    assert all(len(triggers_of(s)) == 1 for s in world.sendings if BAD in triggers_of(s))
    assert len([s for s in world.sendings if BAD not in triggers_of(s)]) == 1


@pytest.mark.parametrize(("ends", "delivered", "requests"), [(False, 195, 1), (True, 200, 40)])
def test_a_breaker_that_opens_between_look_and_booking_parts_the_triggers(
    make_world, ends: bool, delivered: int, requests: int
) -> None:
    world = sharing(make_world)
    put_some(world)
    look = world.gate.look
    looks: list[Any] = []

    async def look_while_it_changes(triggers: Any) -> Any:
        if looks and ends:
            send_time = await world.gate.book(kind="live", triggers=["t1"], horizon_seconds=1.0)
            await world.gate.report(send_time, Accepted(), delivered={})
        looks.append(await look(triggers))
        if len(looks) == 1:
            await world.fail_elsewhere(BAD)
        return looks[-1]

    world.look = look_while_it_changes

    tally, _ = world.drain()

    assert (tally.delivered, tally.requests) == (delivered, requests)
    assert world.store.waiting() == 200 - delivered


@pytest.mark.parametrize(("resumed", "most"), [(BAD, 4), ("", 8)], ids=["a trigger", "the gate"])
def test_the_probe_goes_alone_before_the_others_and_then_all_triggers_share_again(
    make_world, resumed: str, most: int
) -> None:
    world = sharing(make_world)
    world.run(world.gate.resume(resumed))
    put_some(world)

    world.drain_until_nothing_is_left(seconds=20)

    sizes = [len(s.users) for s in world.sendings if not resumed or resumed in triggers_of(s)]
    assert sizes[0] == 1
    assert world.count("delivered") == 200
    assert len(world.sendings) <= most


def test_triggers_that_make_requests_of_different_kinds_share_none(make_world) -> None:
    world = sharing(make_world)
    other = replace(InsiderApi(), max_users=10)
    world.loaded[BAD] = replace(world.loaded[BAD], api=other)
    put_some(world, 1)

    tally, _ = world.drain()

    assert (tally.delivered, tally.requests) == (len(NAMES), 2)

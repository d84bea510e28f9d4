"""What becomes of those whom a destination refuses, and of the others in their requests."""

import math
from dataclasses import replace
from typing import Any

import orjson
import pytest

from segrelay.worker.core.backoff import TRIES_ALONE
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.insider.api import InsiderApi
from tests.conformance.drain.fake_insider import (
    POISON,
    NamesNobody,
    Reply,
    Sending,
    emails,
    holds_poison,
    names_nobody,
    refused,
    taken,
)
from tests.conformance.drain.world import dead_letters, event, members, reasons


def test_a_body_never_exceeds_the_size_that_the_api_takes(make_world) -> None:
    sizes: list[int] = []

    def responds(sending: Sending) -> Any:
        sizes.append(len(orjson.dumps(sending.users)))
        return taken(sending)

    world = make_world(responds, api=replace(InsiderApi(), max_bytes=50_000))
    world.put(*(event(f"p{n}", padding="x" * 2_000) for n in range(60)))
    world.put(event("large", padding="x" * 50_000))
    world.drain_until_nothing_is_left(seconds=60)

    assert 40_000 < max(sizes) < 50_000
    assert len(members(world)) == 60
    assert reasons(world) == ["too_large"]


@pytest.mark.parametrize(("fits", "seconds"), [(20, 0.02), (12, 1.0)], ids=["quick", "slow"])
def test_a_size_that_is_refused_splits_until_it_fits(make_world, fits: int, seconds: float) -> None:
    def responds(sending: Sending) -> Reply:
        reply = taken(sending) if len(sending.users) <= fits else refused(413)
        return replace(reply, answer_seconds=seconds)

    world = make_world(responds)
    world.put(*(event(f"p{n}") for n in range(200)))

    world.drain_until_nothing_is_left(seconds=300)

    assert len(members(world)) == 200
    assert world.count("dead") == 0


@pytest.mark.parametrize(
    ("people", "seconds"),
    [(2, 0.02), (300, 0.5), (300, 1.9)],
    ids=["two", "many", "slower than a slice"],
)
def test_a_400_finds_the_culprit_by_halving(make_world, people: int, seconds: float) -> None:
    def responds(sending: Sending) -> Reply:
        reply = refused(400, "users.email") if holds_poison(sending) else taken(sending)
        return replace(reply, answer_seconds=seconds)

    world = make_world(responds)
    everybody = [event(f"p{n}") for n in range(people - 1)]
    world.put(*everybody[: 3 * people // 5], event("poison"), *everybody[3 * people // 5 :])

    world.drain_until_nothing_is_left(seconds=300)

    assert reasons(world) == ["refused"]
    assert dead_letters(world)[0]["profile"]["email"] == POISON
    assert len(members(world)) == people - 1
    assert len(world.sendings) - 1 <= 2 * math.ceil(math.log2(people))


def test_a_user_who_is_refused_costs_the_others_nothing(make_world) -> None:
    def responds(sending: Sending) -> Any:
        index = emails(sending).index(POISON)
        return taken(sending, {f"users.{index}.attributes.age": ["is not right"]})

    world = make_world(responds)
    world.put(*(event(f"p{n}") for n in range(50)), event("poison"))

    tally, _ = world.drain()

    assert (tally.delivered, tally.dead, tally.requests) == (50, 1, 1)
    assert dead_letters(world)[0]["attempts"] == 1


@pytest.mark.parametrize("seconds", [0.02, 0.7], ids=["quick", "slow"])
def test_a_halving_that_finds_only_400s_of_one_cause_pauses_the_trigger(
    make_world, seconds: float
) -> None:
    wrong = replace(refused(400, "users is wrong"), answer_seconds=seconds)
    world = make_world(lambda s: wrong if s.url.endswith("upsert") else taken(s))
    world.put(*(event(f"p{n}") for n in range(100)), event("p1", "new", "exit"))

    world.drain_until_nothing_is_left(seconds=60)

    assert list(world.paused) == ["enter"]
    assert world.count("dead") == 0
    assert world.store.waiting() == 100
    assert world.store.counts["delivered|exit"] == 1
    assert len(world.sendings) < 40, "once it is paused, nothing more of it is sent"


@pytest.mark.parametrize(("others", "taken_ones"), [(taken, 7), (lambda _: refused(400, "no"), 0)])
def test_whom_the_endpoint_does_not_want_is_skipped_and_proves_nothing_of_others(
    make_world, others: Any, taken_ones: int
) -> None:
    def responds(sending: Sending) -> Reply:
        return refused(422, "unsubscribed") if holds_poison(sending) else others(sending)

    world = make_world(responds, api=NamesNobody())
    world.put(*(event(f"p{n}") for n in range(7)), event("poison"))
    world.drain_until_nothing_is_left(seconds=60)

    rows = [row for row in world.store.outcomes if row.outcome == "skipped"]
    told = [(row.reason, row.status, row.message) for row in rows]
    assert told == [("suppressed", 422, "suppressed: 422: unsubscribed")]
    assert (world.count("delivered"), world.count("dead")) == (taken_ones, 0)
    assert world.store.ledger(event("poison").header.digest) is None


BLOCKED = Reply(Answer(403, b"<html>blocked</html>", ""), "refused")


@pytest.mark.parametrize(
    ("no", "at_once"),
    [(BLOCKED, 1), (BLOCKED, 8), (refused(400, "no"), 1), (refused(400, "no"), 3)],
)
def test_a_refusal_of_everything_is_no_verdict_about_anybody(make_world, no, at_once) -> None:
    blocked = [True]
    world = make_world(lambda s: no if blocked else taken(s))
    for first in range(0, 120, at_once):
        world.put(*(event(f"p{first + n}") for n in range(at_once)))
        world.drain()
        world.pass_seconds(0.3)
    requests = len(world.sendings)

    assert world.count("dead") == 0
    assert world.paused == {}
    assert requests < 40
    blocked.clear()
    world.drain_until_nothing_is_left(seconds=300)
    assert world.count("delivered") == 120
    assert world.count("dead") == 0


def test_a_refusal_of_everything_that_begins_amid_a_halving_buries_next_to_nobody(
    make_world,
) -> None:
    """The half of a body that was taken says nothing about what is refused later."""
    blocked: list[bool] = []

    def responds(sending: Sending) -> Any:
        if len(sending.users) == 50 and not blocked:
            blocked.append(True)
            return taken(sending)
        return refused(400, "no") if len(sending.users) == 100 else BLOCKED

    world = make_world(responds)
    world.put(*(event(f"p{n}") for n in range(100)))

    world.drain_until_nothing_is_left(seconds=60)

    assert world.count("delivered") == 50
    assert world.count("dead") <= world.limits["in_flight"]


def test_who_is_refused_alone_dies_once_others_go_through(make_world) -> None:
    world = make_world(lambda s: refused(400, "no") if holds_poison(s) else taken(s))
    world.put(event("poison"))
    world.drain_until_nothing_is_left(seconds=20)
    assert world.count("dead") == 0

    for n in range(30):
        world.put(event(f"p{n}"))
        world.drain()
        world.pass_seconds(1)

    assert reasons(world) == ["refused"]
    assert world.count("delivered") == 30


@pytest.mark.parametrize(
    ("status", "taken_before", "dies"),
    [
        pytest.param(400, "enter", True, id="where its trigger was taken before"),
        pytest.param(400, "exit", True, id="where another trigger is taken"),
        pytest.param(404, "exit", False, id="not for a path"),
    ],
)
def test_who_alone_is_refused_dies_where_others_are_taken(
    make_world, status: int, taken_before: str, dies: bool
) -> None:
    world = make_world(lambda s: refused(status, "no") if holds_poison(s) else taken(s))
    world.put(event("ada", trigger=taken_before))
    world.drain()
    world.put(event("poison"))

    world.drain_until_nothing_is_left(seconds=120)

    assert reasons(world) == ["refused"] * dies
    assert not dies or sum(map(holds_poison, world.sendings)) == TRIES_ALONE


@pytest.mark.parametrize("at_once", [1, 8])
def test_a_refusal_of_everything_kills_nobody_though_all_was_taken_before(
    make_world, at_once
) -> None:
    blocked: list[bool] = []
    world = make_world(lambda s: refused(400, "no") if blocked else taken(s))
    world.put(event("ada"), event("bea", trigger="exit"))
    world.drain()
    blocked.append(True)
    for first in range(0, 60, at_once):
        world.put(*(event(f"p{first + n}") for n in range(at_once)))
        world.put(*(event(f"q{first + n}", trigger="exit") for n in range(at_once)))
        world.drain()
        world.pass_seconds(1.0)

    assert world.count("dead") == 0
    assert world.paused == {}
    assert len(world.sendings) < 60
    blocked.clear()
    world.drain_until_nothing_is_left(seconds=300)
    assert world.count("delivered") == 2 + 2 * at_once * math.ceil(60 / at_once)


def test_a_refusal_that_nothing_explains_is_tried_less_and_less_often(make_world) -> None:
    world = make_world(lambda _: refused(400, "no"))
    world.put(event("ada"), event("bob"))

    world.drain_until_nothing_is_left(seconds=1_800)

    assert world.count("dead") == 0
    assert len(world.sendings) < 60
    assert {len(sending.users) for sending in world.sendings[1:]} == {1}
    for backoff in world.store.aside.values():
        assert (backoff.refusal, backoff.width) == ("400: no", 1)
        assert backoff.since_ms < world.now_ms() - 1_700_000, "it keeps the time of the first"


def test_five_hundred_deaths_of_one_cause_pause_the_trigger(make_world) -> None:
    world = make_world()
    world.put(*(event(f"p{n}", behave="fail") for n in range(700)), event("ada", "new", "exit"))

    world.drain_until_nothing_is_left(seconds=60)

    assert list(world.paused) == ["enter"]
    assert world.store.counts["dead|enter|template_error"] == 500
    assert world.store.waiting() == 200
    assert world.store.counts["delivered|exit"] == 1


def test_deaths_between_deliveries_pause_nothing(make_world) -> None:
    world = make_world()
    for first in range(0, 600, 300):
        world.put(*(event(f"p{n}", behave="fail") for n in range(first, first + 300)))
        world.put(event(f"good{first}"))
        world.drain_until_nothing_is_left(seconds=60)

    assert world.paused == {}
    assert world.count("dead") == 600


def _taken_but(bad: set[str], sending: Sending) -> Reply:
    return names_nobody(sending, *(n for n, who in enumerate(emails(sending)) if who in bad))


@pytest.mark.parametrize("people", [2, 64])
def test_an_answer_whose_errors_name_nobody_is_halved_until_it_is_clear_whose_they_are(
    make_world, people: int
) -> None:
    world = make_world(lambda s: _taken_but({POISON}, s), api=NamesNobody())
    world.put(event("poison"), *(event(f"p{n}") for n in range(people - 1)))

    world.drain_until_nothing_is_left(seconds=10)

    assert reasons(world) == ["refused"]
    assert dead_letters(world)[0]["profile"]["email"] == POISON
    assert len(members(world)) == people - 1
    assert world.paused == {}
    assert not world.gate_fields().get("pause")
    assert world.store.open == {}
    sent = sum(len(sending.users) for sending in world.sendings)
    assert world.count("resent") == sent - people


def test_who_is_refused_by_a_list_of_errors_dies_alone_where_others_were_taken_lately(
    make_world,
) -> None:
    world = make_world(lambda s: _taken_but({POISON}, s), api=NamesNobody())
    world.put(event("poison"))
    world.drain_until_nothing_is_left(seconds=20)
    assert world.count("dead") == 0
    world.put(event("ada"))

    world.drain_until_nothing_is_left(seconds=20)

    assert reasons(world) == ["refused"]
    assert members(world) == {"ada@example.com"}


def test_where_every_answer_lists_errors_nobody_dies(make_world) -> None:
    text = orjson.dumps({"errors": ["this version is old"]})
    reply = Reply(Answer(200, text), "unsure", applied=True)
    world = make_world(lambda _: reply, api=NamesNobody())
    world.put(*(event(f"p{n}") for n in range(50)))

    world.drain_until_nothing_is_left(seconds=60)

    assert world.count("dead") == 0
    assert list(world.paused) == ["enter"]
    assert not world.gate_fields().get("pause")


def test_what_may_not_be_sent_twice_is_dead_where_errors_name_nobody(make_world) -> None:
    world = make_world(
        lambda s: _taken_but({POISON}, s), api=NamesNobody(), on_ambiguous="dead_letter"
    )
    world.put(event("poison"), *(event(f"p{n}") for n in range(9)))

    world.drain_until_nothing_is_left(seconds=10)
    world.put(event("p9"))
    world.drain()

    assert set(reasons(world)) == {"ambiguous"}
    assert len(dead_letters(world)) == 10
    assert {letter["status"] for letter in dead_letters(world)} == {200}
    assert len(world.sendings) == 2
    assert world.count("delivered") == 1
    assert world.store.open == {}

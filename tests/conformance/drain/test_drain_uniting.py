"""Deliveries of one person share a user object, and Insider ends up as it would without that."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.insider.api import InsiderApi
from tests.conformance.drain.fake_insider import (
    ATTRIBUTE,
    UPSERT,
    Reply,
    Sending,
    emails,
    failed,
    refused,
    taken,
)
from tests.conformance.drain.world import World, dead_letters, event
from tests.nightly import amount

AUDIENCES = [f"a{number}" for number in range(6)]
ENTERS = {
    "enter": (Direction.ENTER, UPSERT),
    "other": (Direction.ENTER, UPSERT),
    "overwrite": (Direction.ENTER, UPSERT),
}


def tells(at: int, **user: Any) -> dict[str, Any]:
    """Return what a profile makes its template tell beside the membership."""
    identifiers = user.pop("identifiers", {})
    attributes = user.pop("attributes", {"email_optin": at % 2 == 0, "age": at})
    return {"tells": {"user": user, "identifiers": identifiers, "attributes": attributes}}


def entering(audience: str, at: int = 1, trigger: str = "enter", **user: Any) -> Any:
    return event("ann", audience, trigger, at=at, **tells(at, **user))


def logged(at: int) -> list[dict[str, str]]:
    return [{"event_name": f"e{at}", "timestamp": "2026-11-01T00:00:00Z"}]


def counted(world: World) -> tuple[int, int]:
    return world.count("delivered"), len(world.sendings)


@pytest.mark.parametrize("several", [2, 6])
def test_deliveries_of_one_person_share_a_user_object(redis: Redis, several: int) -> None:
    with World(redis) as world:
        audiences = AUDIENCES[:several]
        world.put(*(entering(audience, at) for at, audience in enumerate(audiences, start=1)))

        world.drain()

        assert (*counted(world), world.tallies[-1].skipped) == (several, 1, 0)
        (user,) = world.sendings[0].users
        assert user["attributes"]["custom"][ATTRIBUTE] == audiences
        assert user["attributes"]["age"] == several
        told = world.store.outcomes[-1].message
        assert told == f"{several} deliveries shared one user object"


def test_the_same_event_twice_is_sent_once(redis: Redis) -> None:
    with World(redis) as world:
        world.put(entering("a1"), entering("a2"), entering("a1"))

        world.drain()

        (user,) = world.sendings[0].users
        assert user["attributes"]["custom"][ATTRIBUTE] == ["a1", "a2"]
        assert (world.count("delivered"), world.count("skipped")) == (2, 1)


OBJECTS = {"object_attributes": [{"name": "cart"}]}


@pytest.mark.parametrize(
    ("first", "second", "unites"),
    [
        (entering("a1"), entering("a2", identifiers={"uuid": "u-1"}), True),
        (entering("a1"), entering("a2", append=True), True),
        (entering("a1"), entering("a2", **OBJECTS), True),
        (*(event("ann", f"a{at}", at=at, root=OBJECTS, **tells(at)) for at in (1, 2)), True),
        (entering("a1"), entering("a2"), False),
    ],
    ids=["identifiers", "append", "objects", "objects of the root", "as configured"],
)
def test_bodies_that_do_not_simply_add_to_each_other_go_one_after_the_other(
    redis: Redis, first: NewDelivery, second: NewDelivery, unites: bool
) -> None:
    with World(redis, api=InsiderApi(unites=unites)) as world:
        world.put(first, second)

        world.drain()

        assert counted(world) == (2, 2)


def test_a_body_that_overwrites_the_list_goes_by_itself(redis: Redis) -> None:
    with World(redis) as world:
        world.put(
            entering("a1"),
            event("ann", "a2", "overwrite", at=2, segments=["a1", "a2"]),
            entering("a3", 3),
        )

        world.drain()

        assert world.insider.lists["ann@example.com"] == {"a1", "a2", "a3"}
        assert counted(world) == (3, 2)


def test_stale_root_options_are_not_sent_and_fresh_ones_are(redis: Redis) -> None:
    with World(redis) as world:
        world.put(entering("a2", 5))
        world.drain()
        world.put(
            *(event(person, "a1", at=3, root=OBJECTS, **tells(3)) for person in ("ann", "bob"))
        )

        world.drain()

        _, *sent = world.sendings
        roots = {emails(sending)[0]: sending.root for sending in sent}
        assert roots == {"ann@example.com": {}, "bob@example.com": OBJECTS}
        assert world.count("dropped") == 2


def test_a_probe_sends_the_root_options_that_are_still_true(redis: Redis) -> None:
    people = ("ann", "bob")
    with World(redis) as world:
        world.put(*(event(person, "a2", at=5, **tells(5)) for person in people))
        world.drain()
        world.run(world.gate.resume("enter"))
        world.put(*(event(person, "a1", at=3, root=OBJECTS, **tells(3)) for person in people))

        world.drain_until_nothing_is_left()

        _, *sent = world.sendings
        assert [(len(sending.users), sending.root) for sending in sent] == [(1, {}), (1, {})]


@pytest.mark.parametrize("others", [["a1"], ["a1", "a3"]])
def test_of_a_refused_user_object_only_the_delivery_at_fault_is_dead(
    redis: Redis, others: list[str]
) -> None:
    def responds(sending: Sending) -> Reply:
        wrong = [
            at
            for at, user in enumerate(sending.users)
            if "a2" in user["attributes"]["custom"][ATTRIBUTE]
        ]
        return taken(sending, {f"users.{at}.attributes.age": ["not right"] for at in wrong})

    with World(redis, responds) as world:
        world.put(*map(entering, sorted([*others, "a2"])), event("bob"), event("cat"))

        world.drain_until_nothing_is_left()

        assert world.insider.lists["ann@example.com"] == set(others)
        assert [dead_letter["audience"] for dead_letter in dead_letters(world)] == ["a2"]
        assert world.count("delivered") == len(others) + 2


def test_of_a_refused_body_only_the_delivery_at_fault_is_dead(redis: Redis) -> None:
    def responds(sending: Sending) -> Reply:
        is_wrong = any("a2" in user["attributes"]["custom"][ATTRIBUTE] for user in sending.users)
        return refused(400, "not right") if is_wrong else taken(sending)

    with World(redis, responds) as world:
        world.put(*(entering(audience) for audience in AUDIENCES))

        world.drain_until_nothing_is_left()

        assert world.insider.lists["ann@example.com"] == {*AUDIENCES} - {"a2"}
        assert [dead_letter["audience"] for dead_letter in dead_letters(world)] == ["a2"]


def test_what_shared_a_request_that_failed_may_be_repeated_at_once(redis: Redis) -> None:
    answers = [failed(502, applied=True)]
    with World(redis, lambda sending: answers.pop() if answers else taken(sending)) as world:
        world.put(entering("a1"), entering("a2"))

        world.drain()
        world.drain_until_nothing_is_left(seconds=15.0)

        assert world.count("delivered") == 2
        assert world.count("resent") == 2


def test_a_request_has_no_more_bytes_than_it_may_have_alone(redis: Redis) -> None:
    api = InsiderApi(max_bytes=1_000)
    with World(redis, api=api) as world:
        world.put(*(entering(audience, attributes={"name": "x" * 200}) for audience in AUDIENCES))

        world.drain_until_nothing_is_left()

        assert world.count("delivered") == 6
        assert len(world.sendings) > 1


def happened(rng: random.Random) -> list[Any]:
    """Return deliveries of some people, in the order of their times."""
    deliveries = []
    inside: dict[str, list[str]] = {"ann": [], "bob": []}
    for at in range(1, rng.randint(2, 25)):
        user: dict[str, Any] = {}
        person, trigger = rng.choice(["ann", "bob"]), rng.choice(list(ENTERS))
        if rng.random() < 0.2:
            user["identifiers"] = {"uuid": f"{person}-{rng.randint(1, 2)}"}
        if rng.random() < 0.2:
            user["append"] = True
        user["events"] = logged(at)
        user["attributes"] = {
            name: at if name == "age" else f"{name} {at}"
            for name in ("age", "name", "city", "surname")
            if rng.random() < 0.5
        } | {"static_segment_id": [rng.randint(1, 9)]}
        inside[person].append(f"a{at}")
        segments = tuple(inside[person])
        deliveries.append(
            event(person, segments[-1], trigger, at=at, segments=segments, **tells(at, **user))
        )
    return deliveries


def outcome(redis: Redis, deliveries: list[Any], *, unites: bool) -> tuple[Any, ...]:
    with World(redis, triggers=ENTERS, api=InsiderApi(unites=unites)) as world:
        for delivery in deliveries:
            world.put(delivery)
            world.pass_seconds(0.01)
        world.drain_until_nothing_is_left()
        insider = world.insider
        people = ("ann@example.com", "bob@example.com")
        lists = {
            person: {k: sorted(v) if isinstance(v, list) else v for k, v in told.items()}
            for person, told in insider.attributes.items()
        }
        return (
            [insider.lists[person] for person in people],
            lists,
            [sorted(entry["event_name"] for entry in insider.log[person]) for person in people],
            [insider.known_as[person] for person in people],
        )


@given(seed=st.integers(0, 2**32))
@settings(max_examples=amount(20, nightly=3_000))
def test_insider_holds_the_same_as_without_uniting(redis: Redis, seed: int) -> None:
    deliveries = happened(random.Random(seed))

    united, apart = [outcome(redis, deliveries, unites=unites) for unites in (True, False)]

    assert united == apart

"""What the sandbox does to profiles: lists, deletes, identities, what it swallows."""

from __future__ import annotations

import orjson
import pytest

from segrelay.sandbox.insider.api import ArrivedRequest
from segrelay.sandbox.insider.rules import ATTRIBUTE_DELETE, ERASE, PROFILE
from tests.unit.sandbox.account import (
    HEADERS,
    NOW,
    account,
    errors,
    event,
    lists,
    person,
    post,
    value,
)


def test_profiles_that_share_an_identifier_become_one():
    insider = account()
    post(insider, person("ann@example.com", ["vip"]), person("bob@example.com", ["gold"]))
    identifiers = {"email": "ann@example.com", "custom": {"device": "7"}}
    post(insider, {**person(), "identifiers": identifiers})

    shared = {"email": "bob@example.com", "custom": {"device": "7"}}
    post(insider, {**person(lists=["new"]), "identifiers": shared})

    assert len(insider.profiles) == 1
    assert insider.profiles.merged == 1
    both = ["gold", "new", "vip"]
    assert lists(insider) == {"ann@example.com": both, "bob@example.com": both}


def test_an_event_that_comes_again_is_there_twice():
    insider = account()

    for _ in range(2):
        post(insider, person(events=[event(audience="vip")]))

    assert insider.profiles.find(("email:ann@example.com",)).event_count == 2
    assert insider.profiles.events_doubled == 1


@pytest.mark.parametrize(
    ("user", "drop"),
    [
        (person(attributes={"nickname": "A"}), ("undefined_attribute", "nickname")),
        (person(attributes={"age": "33"}), ("mistyped_attribute", "age")),
        (person(attributes={"name": None}), ("mistyped_attribute", "name")),
        (person(attributes={"language": "en"}), ("mistyped_attribute", "language")),
        (person(attributes={"custom": {"new": 1}}), ("undefined_attribute", "new")),
        (person(attributes={"custom": {"status": 1}}), ("mistyped_attribute", "status")),
        (person(lists=[{"a": 1}]), ("mistyped_attribute", "lytics_computed_attr")),
        (person(events=[event("unknown")]), ("undefined_event", "unknown")),
        (person(events=[event(colour="red")]), ("undefined_parameter", "colour")),
        (person(events=[event(audience=7)]), ("mistyped_parameter", "audience")),
        (person(events=[event(at="2026-08-01T10:00:00Z")]), ("old_event", "lytics_trigger")),
    ],
)
def test_what_is_swallowed_is_answered_as_success_and_recorded(user, drop):
    insider = account()

    answer = post(insider, user)

    assert value(answer)["data"]["fail"] == {}
    assert insider.drops == {drop: 1}


def test_everything_is_defined_on_demand_up_to_eighty_custom_attributes():
    insider = account(accept_anything=True, panel_attributes={})
    custom = {f"field_{number}": number for number in range(81)}

    post(insider, person(attributes={"custom": custom}))

    assert len(insider.profiles.find(("email:ann@example.com",)).attributes()[1]) == 80
    assert insider.drops == {("undefined_attribute", "field_80"): 1}


def test_the_erasing_path_erases_and_is_counted():
    insider = account()
    post(insider, person("ann@example.com"), person("bob@example.com"))
    users = {"users": [{"identifiers": {"email": "ann@example.com"}}]}

    answer = insider.erase(ArrivedRequest(ERASE, HEADERS, orjson.dumps(users)))

    assert answer.status == 200
    assert insider.profiles.erased == 1
    assert list(lists(insider)) == ["bob@example.com"]


def test_a_profile_can_be_read_back():
    insider = account()
    attributes = {"gdpr_optin": True, "custom": {"lytics_computed_attr": ["vip"]}}
    post(insider, person(attributes=attributes))

    read = {
        "identifiers": {"email": "ann@example.com"},
        "attributes": ["email", "gdpr", "c_lytics_computed_attr", "c_absent"],
        "quota": True,
    }
    answer = insider.read_profile(ArrivedRequest(PROFILE, HEADERS, orjson.dumps(read)), NOW)

    assert value(answer) == {
        "attributes": {"email": "ann@example.com", "gdpr": True, "c_lytics_computed_attr": ["vip"]},
        "quota": {"cost": 2.5, "used": 2.5, "total": 1_000},
    }


@pytest.mark.parametrize(
    ("whole", "own", "held"),
    [
        ({}, {}, ["new", "vip"]),
        ({"append": False}, {}, ["new"]),
        ({"append": True}, {"not_append": True}, ["new"]),
        ({"append": False}, {"append": True}, ["new", "vip"]),
        ({}, {"not_append": True}, ["new"]),
        ({}, {"not_append": False, "append": False}, ["new"]),
    ],
)
def test_arrays_are_appended_as_the_body_or_the_user_says(whole, own, held):
    insider = account()
    post(insider, person(lists=["vip"]))

    post(insider, person(lists=["new"], **own), **whole)

    assert lists(insider) == {"ann@example.com": held}


@pytest.mark.parametrize(
    "parts",
    [
        {"whole": ["email"]},
        {"custom": {"whole": ["lytics_id"]}},
        {"custom": {"partial": {"lytics_id": ["7"]}}},
    ],
)
def test_an_identifier_cannot_be_deleted(parts):
    ann = {"identifiers": {"email": "ann@example.com", "custom": {"lytics_id": "7"}}}
    attributes = {"email": "ann@example.com", "custom": {"lytics_id": "7"}}
    insider = account(panel_attributes={"lytics_id": "string"})
    post(insider, {**ann, "attributes": attributes})

    refused = post(insider, {**ann, **parts}, path=ATTRIBUTE_DELETE)

    assert [key.split(".")[-1] for key in errors(refused)] == ["identifier"]
    [profile] = insider.profiles
    assert profile.attributes() == ({"email": "ann@example.com"}, {"lytics_id": "7"})

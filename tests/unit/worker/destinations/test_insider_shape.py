"""Rendered bodies made valid for Insider."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.destinations.api import Shaped, ShapingRules
from tests.unit.worker.destinations.shaping import (
    ANN,
    API,
    DELETE,
    HEADER,
    NOW_US,
    PATCH,
    RULES,
    UPSERT,
    body,
    event,
    refused,
    shaped,
)


def test_the_rendered_body_is_not_changed() -> None:
    given_body = body(1)
    text = orjson.dumps(given_body)

    API.shape(given_body, *UPSERT, NOW_US)

    assert orjson.dumps(given_body) == text


@pytest.mark.parametrize(
    ("identifiers", "left", "dropped"),
    [
        ({"email": "Ann@Example.com "}, {"email": "ann@example.com"}, ()),
        ({"email": "ann", "uuid": "u1"}, {"uuid": "u1"}, ("identifiers.email",)),
        ({"phone_number": "(415) 555-2671"}, {"phone_number": "+14155552671"}, ()),
        ({"uuid": 42}, {"uuid": "42"}, ()),
        ({"uuid": "u1", "cookie": "c"}, {"uuid": "u1"}, ("identifiers.cookie",)),
        ({"custom": {"a": 12, "b": "", "c": None}}, {"custom": {"a": "12"}}, ()),
        ({"uuid": "u1", "custom": {"a": True}}, {"uuid": "u1"}, ("identifiers.custom.a",)),
        ({"uuid": "u1", "custom": ["a"]}, {"uuid": "u1"}, ("identifiers.custom",)),
    ],
)
def test_identifiers_are_made_right_or_left_out(
    identifiers: Any, left: Any, dropped: tuple[str, ...]
) -> None:
    result = shaped({"identifiers": identifiers, "attributes": {"name": "Ann"}})

    assert result.users[0]["identifiers"] == left
    assert result.dropped == dropped


def test_insiders_own_id_stands_in_the_place_of_identifiers() -> None:
    result = shaped({"insider_id": "i-77", "attributes": {"name": "Ann"}})

    assert result.users[0] == {"insider_id": "i-77", "attributes": {"name": "Ann"}}


NAMED = {**ANN, "attributes": {"name": "Ann"}}
EMPTY = {**ANN, "attributes": {"name": "", "custom": {"a": []}}}
TOO_OLD = {**ANN, "events": [event(timestamp="2026-07-01T00:00:00Z")]}
LISTED = {**ANN, "attributes": {"custom": {"lytics_computed_attr": []}}}
LEAVING = {**ANN, "custom": {"partial": {"lytics_computed_attr": ["vip"]}}}


def shared_by_many(shared: Any) -> dict[str, Any]:
    identifiers = {"uuid": shared, "custom": {"lytics_id": shared}}
    return {"insider_id": shared, "identifiers": identifiers, "attributes": {"name": "Ann"}}


@pytest.mark.parametrize(
    ("wrong", "on", "reason", "told"),
    [
        *((one, UPSERT, Death.INVALID, "")
          for one in (None, 7, [], "https://example.com", {}, {"users": {}}, {"users": ["ann"]})),
        *(({"users": [shared_by_many(one)]}, UPSERT, Death.INVALID, "")
          for one in ("undefined", "Anonymous", "0", "1", 0, 1, "null", "", " ")),
        ({"users": []}, UPSERT, Skip.EMPTY, ""),
        ({"users": [NAMED] * 1_001}, UPSERT, Death.INVALID, ""),
        ({"users": [{**NAMED, "identifiers": {"email": "ann"}}]}, UPSERT, Death.INVALID,
         "identifiers.email"),
        ({"users": [EMPTY]}, UPSERT, Skip.EMPTY, ""),
        ({"users": [{**ANN, "attributes": {"age": "old"}}]}, UPSERT, Death.INVALID,
         "attributes.age"),
        ({"users": [TOO_OLD]}, UPSERT, Skip.TOO_OLD, ""),
        ({"users": [{**LISTED, "not_append": True, "append": True}]}, UPSERT, Skip.EMPTY, ""),
        (body(1), DELETE, Death.INVALID, "`attributes` and `events`"),
        ({"users": [LEAVING]}, UPSERT, Death.INVALID, ""),
        ({"users": [{**ANN, "custom": {"partial": {}}}]}, DELETE, Skip.EMPTY, ""),
    ],
)  # fmt: skip
def test_what_can_not_be_sent_is_dead_and_what_says_nothing_is_skipped(
    wrong: Any, on: tuple[Header, ShapingRules], reason: Skip | Death, told: str
) -> None:
    result = refused(wrong, on)

    assert result.reason is reason
    assert told in result.message
    assert "ann" not in result.message


@pytest.mark.parametrize(
    ("attributes", "left", "dropped"),
    [
        ({"name": " Ann ", "age": ""}, {"name": "Ann"}, ()),
        ({"name": "Ann", "phone_number": "12"}, {"name": "Ann"}, ("attributes.phone_number",)),
        ({"name": "Ann", "email_optin": "maybe"}, {"name": "Ann"}, ("attributes.email_optin",)),
        ({"gdpr_optin": 0}, {"gdpr_optin": False}, ()),
        ({"name": "Ann", "shoe": 41}, {"name": "Ann"}, ("attributes.shoe",)),
        ({"name": ["Ann"], "city": "X"}, {"city": "X"}, ("attributes.name",)),
        ({"custom": {"a": 0, "b": False, "c": ""}}, {"custom": {"a": 0, "b": False}}, ()),
        ({"name": "Ann", "custom": "x"}, {"name": "Ann"}, ("attributes.custom",)),
        (
            {"static_segment_id": [7], "list_id": "8"},
            {"static_segment_id": [7], "list_id": [8]},
            (),
        ),
        ({"lo": "en", "app_version": 7}, {"lo": "en", "app_version": "7"}, ()),
        ({"lo": "en", "language": "yue"}, {"lo": "en"}, ("attributes.language",)),
        ({"lo": "en", "object_attributes": {}}, {"lo": "en"}, ()),
        ({"object_attributes": PATCH}, {"object_attributes": PATCH}, ()),
    ],
)
def test_attributes_are_made_right_or_left_out_by_name(
    attributes: Any, left: Any, dropped: tuple[str, ...]
) -> None:
    result = shaped({**ANN, "attributes": attributes})

    assert result.users[0]["attributes"] == left
    assert result.dropped == dropped


@pytest.mark.parametrize(
    ("given_event", "dropped"),
    [
        (event(event_name="bad name"), "events.event_name"),
        (event(event_name="-x"), "events.event_name"),
        (event(timestamp="yesterday"), "events.timestamp"),
        (event(timestamp="2026-07-01T00:00:00Z"), "too_old"),
        ("x", "events"),
    ],
)
def test_an_event_that_cannot_be_right_is_left_out(given_event: Any, dropped: str) -> None:
    result = shaped({**ANN, "attributes": {"name": "Ann"}, "events": [given_event]})

    assert "events" not in result.users[0]
    assert result.dropped == (dropped,)


def test_an_event_without_a_time_gets_that_of_its_delivery() -> None:
    result = shaped({**ANN, "events": [{"event_name": "Lytics_Trigger"}]})

    assert result.users[0]["events"] == [
        {"event_name": "lytics_trigger", "timestamp": "2026-11-01T10:00:00.872199Z"}
    ]


def test_a_purchase_may_be_two_years_old_and_no_older() -> None:
    young = event(event_name="purchase", timestamp="2024-11-05T00:00:00Z")
    old = event(event_name="purchase", timestamp="2024-10-20T00:00:00Z")

    result = shaped({**ANN, "events": [young, old]})

    assert [each["timestamp"] for each in result.users[0]["events"]] == ["2024-11-05T00:00:00Z"]
    assert result.dropped == ("too_old",)


@pytest.mark.parametrize(
    ("root", "kept"),
    [
        ({"append": True}, {"append": True}),
        ({"append": "f"}, {"append": False}),
        ({"object_attributes": PATCH}, {"object_attributes": PATCH}),
        (
            {"error_callback_endpoint": "http://errors.example.com/in"},
            {"error_callback_endpoint": "http://errors.example.com/in"},
        ),
    ],
)
def test_what_a_newer_page_shows_beside_the_users_is_kept(
    root: dict[str, Any], kept: dict[str, Any]
) -> None:
    result = shaped({**ANN, "attributes": {"name": "Ann"}}, **root)

    assert (result.root, result.dropped) == (kept, ())


def test_patches_of_objects_alone_are_something_to_send() -> None:
    result = shaped({**ANN, "object_attributes": PATCH})

    assert result.users == ({**ANN, "object_attributes": PATCH},)


def test_an_entrance_with_an_unknown_list_is_not_overwritten_by_the_bodys_own_switch() -> None:
    user = {**ANN, "attributes": {"custom": {"lytics_computed_attr": [""]}}}

    result = shaped(user, append=False)

    assert result.users[0]["attributes"]["custom"] == {"lytics_computed_attr": ["vip"]}
    assert (result.root, result.dropped) == ({}, ("append",))


def test_parameters_are_pruned_and_unknown_keys_of_events_named() -> None:
    parameters = {"price": 0, "custom": {"a": "", "b": "x"}, "none": None}

    result = shaped({**ANN, "events": [event(event_params=parameters, colour="red")]})

    assert result.users[0]["events"][0]["event_params"] == {"price": 0, "custom": {"b": "x"}}
    assert result.dropped == ("events.colour",)


def test_a_repair_sends_no_events() -> None:
    repair = (HEADER._replace(repair=True), RULES)

    result = shaped({**ANN, "attributes": {"name": "Ann"}, "events": [event()]}, repair)

    assert "events" not in result.users[0]
    assert refused({"users": [{**ANN, "events": [event()]}]}, repair).reason is Skip.EMPTY


def test_an_invalid_user_costs_the_other_nothing() -> None:
    right = {**ANN, "attributes": {"name": "Ann"}}

    result = API.shape({"users": [{"attributes": {"name": "Bob"}}, right]}, *UPSERT, NOW_US)

    assert isinstance(result, Shaped)
    assert result.users == (right,)
    assert result.dropped == ("users",)


def test_root_options_are_kept_and_unknown_ones_named() -> None:
    user = {**ANN, "attributes": {"name": "Ann"}}

    result = shaped(user, skip_hook="t", error_callback_endpoint="https://example.com/e", x=1)

    assert result.root == {"skip_hook": True, "error_callback_endpoint": "https://example.com/e"}
    assert result.dropped == ("x",)
    assert shaped(user, (HEADER._replace(skip_hook=True), RULES)).root == {"skip_hook": True}
    assert shaped(user).root == {}


def test_switches_become_booleans_and_unknown_fields_of_a_user_are_named() -> None:
    result = shaped({**ANN, "attributes": {"name": "Ann"}, "not_append": "true", "vip": 1})

    assert result.users[0]["not_append"] is True
    assert result.dropped == ("vip",)


FIELDS = [
    *("users", "identifiers", "attributes", "events", "custom", "email", "partial", "whole"),
    *("phone_number", "age", "language", "country", "birthday", "not_append", "append"),
    *("timestamp", "event_name", "event_params", "lytics_computed_attr", "insider_id", "uuid"),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(body=json_values, user=json_values, on=st.sampled_from([UPSERT, DELETE]))
def test_nothing_that_a_template_yields_makes_shaping_fail(
    body: Any, user: Any, on: tuple[Header, ShapingRules]
) -> None:
    for one in (body, {"users": [user]}, {"users": [{**ANN, "attributes": user, "events": body}]}):
        result = API.shape(one, *on, NOW_US)
        if isinstance(result, Shaped):
            assert result.users
            assert all(user.get("identifiers") or user.get("insider_id") for user in result.users)

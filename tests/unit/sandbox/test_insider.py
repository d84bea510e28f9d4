"""The account: what it accepts, what it answers, what it holds afterwards."""

from __future__ import annotations

import pytest

from segrelay.sandbox.insider.rules import ATTRIBUTE_DELETE
from tests.unit.sandbox.account import (
    HEADERS,
    NOW,
    account,
    errors,
    event,
    lists,
    person,
    post,
    post_body,
    removal,
    value,
)


def test_a_refused_user_is_reported_by_its_position_and_costs_the_others_nothing():
    insider = account()

    answer = post(insider, person(), person(email="nobody"), person("bob@example.com"))

    assert value(answer)["data"]["successful"] == {"count": 2}
    assert value(answer)["data"]["fail"]["count"] == 1
    assert list(errors(answer)) == [r"users.1.identifiers.email.regexp(^.+@.+\..+$)"]
    assert answer.failed == {1}
    assert sorted(lists(insider)) == ["ann@example.com", "bob@example.com"]


@pytest.mark.parametrize(
    ("user", "location"),
    [
        ({"attributes": {"name": "Ann"}}, "identifiers"),
        ({"identifiers": {"mail": "x"}, "attributes": {"name": "Ann"}}, "identifiers.mail"),
        ({"identifiers": {"phone_number": "0171"}, "events": []}, "identifiers.phone_number"),
        ({"identifiers": {"uuid": 7}, "attributes": {"name": "Ann"}}, "identifiers.uuid"),
        ({"identifiers": {"custom": {"id": ""}}, "events": []}, "identifiers.custom.id"),
        ({"insider_id": "", "attributes": {"name": "Ann"}}, "insider_id"),
        (person(attributes={}), "attributes"),
        (person(attributes={"phone_number": "123"}), "attributes.phone_number"),
        (person(events=[event("Capital")]), "events.0.event_name"),
        (person(events=[event(), event(at="yesterday")]), "events.1.timestamp"),
        (person(not_append="yes"), "not_append"),
        ({"identifiers": {"email": "ann@example.com"}}, "required(attributes,events)"),
        ("ann", "type(object)"),
    ],
)
def test_a_user_is_refused_with_the_place_of_what_is_wrong(user, location):
    answer = post(account(), user)

    assert answer.failed == {0}
    assert any(key.startswith(f"users.0.{location}") for key in errors(answer)), errors(answer)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "invalid json"),
        ({}, "users must be defined"),
        ({"users": []}, "users must be defined"),
        ({"users": [{}] * 1_001}, "at most 1000"),
        ({"users": [{}], "skip_hook": "true"}, "skip_hook"),
        (b" " * 5_000_001, "bigger than maximum allowed size 5,000,000 bytes"),
    ],
)
def test_a_body_that_is_no_request_is_a_400(body, text):
    answer = post_body(account(), body)

    assert answer.status == 400
    assert text in value(answer)["error"]


@pytest.mark.parametrize(
    ("settings", "headers", "status", "message"),
    [
        ({}, {"x-partner-name": ""}, 400, "Partner is invalid."),
        ({}, {"x-partner-name": "Acme"}, 400, "Partner is invalid."),
        ({}, {"x-request-token": ""}, 401, "Access Denied"),
        ({"token": "right"}, {}, 403, "Access Denied"),
        ({"credentials_status": 403}, {}, 403, "Access Denied"),
    ],
)
def test_wrong_credentials_are_denied_in_insiders_shape(settings, headers, status, message):
    insider = account(**settings)

    answer = post(insider, person(), headers=HEADERS | headers)

    assert answer.status == status
    assert value(answer) == {"success": False, "message": message}
    assert len(insider.profiles) == 0


def test_the_limit_holds_in_every_sliding_minute_over_both_paths():
    insider = account(limit_per_minute=2)

    statuses = [
        post(insider, person(), now=NOW).status,
        post(insider, removal(), path=ATTRIBUTE_DELETE, now=NOW + 30).status,
        post(insider, person(), now=NOW + 59.9).status,
        post(insider, person(), now=NOW + 60).status,
        post(insider, person(), now=NOW + 61).status,
    ]

    assert statuses == [200, 200, 429, 200, 429]
    assert insider.received.highest == 4
    assert insider.admitted.highest == 2
    assert insider.limited == 2

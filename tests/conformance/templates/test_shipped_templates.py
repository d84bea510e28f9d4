from datetime import UTC, datetime

import pytest

from worker.checks.samples import sample_profile
from worker.contract.words import Direction

NOW = datetime(2027, 2, 20, 12, tzinfo=UTC)


def _profile(kind="enter", at="2026-11-01T10:00:00.872199615Z", **fields):
    event = {"id": "01" * 16, "slug": "vip", "event": kind}
    if kind != "change":
        event[kind] = at
    return {"email": "ann@example.com", "segment_events": [event], **fields}


def test_an_entrance_appends_the_slug_and_overwrites_nothing(shipped):
    profile = _profile(_segments=["vip", "news"])

    [user] = shipped("enter", [profile])

    assert user["attributes"]["custom"] == {"lytics_computed_attr": ["vip"]}
    assert user.keys() == {"identifiers", "attributes", "events"}


def test_an_exit_takes_the_slug_that_was_left_and_nothing_else(shipped):
    profile = _profile("exit", _segments=["news", "other"])

    [user] = shipped("exit", [profile])

    assert user == {
        "identifiers": {"email": "ann@example.com"},
        "custom": {"partial": {"lytics_computed_attr": ["vip"]}},
    }


def test_the_exits_event_goes_by_upsert(shipped):
    [user] = shipped("exit-event", [_profile("exit")])

    assert user == {
        "identifiers": {"email": "ann@example.com"},
        "events": [
            {
                "event_name": "lytics_trigger",
                "timestamp": "2026-11-01T10:00:00.872199Z",
                "event_params": {
                    "custom": {
                        "id": "01" * 16,
                        "audience": "vip",
                        "trigger": "exit",
                        "origin": "Lytics",
                    }
                },
            }
        ],
    }


def test_the_attribute_is_a_setting(shipped):
    settings = {"audience_attribute": "audiences"}

    [entered] = shipped("enter", [_profile()], settings)
    [left] = shipped("exit", [_profile("exit")], settings)

    assert entered["attributes"]["custom"] == {"audiences": ["vip"]}
    assert left["custom"] == {"partial": {"audiences": ["vip"]}}


PEOPLE = [
    ({"email": "Ann@Example.com"}, {"email": "ann@example.com"}),
    (
        {"_id": "1007", "payload_id": "9", "_uid": "u"},
        {"email": "ann@example.com", "custom": {"lytics_id": "1007"}},
    ),
    ({"_id": 1007}, {"email": "ann@example.com", "custom": {"lytics_id": "1007"}}),
    ({"payload_id": "9"}, {"email": "ann@example.com"}),
    ({"email": "", "payload_id": "9"}, {"custom": {"lytics_id": "9"}}),
    ({"email": None, "_id": "null"}, None),
    ({"email": "undefined", "_id": "0"}, None),
    ({"email": "anonymous", "_id": ""}, None),
]


@pytest.mark.parametrize(
    ("name", "kind"), [("enter", "enter"), ("exit", "exit"), ("exit-event", "exit")]
)
def test_all_three_mean_the_same_person(shipped, name, kind):
    users = shipped(name, [_profile(kind, **fields) for fields, _ in PEOPLE])

    sent = [user and user["identifiers"] for user in users]
    assert sent == [expected for _, expected in PEOPLE]


def _values(thing):
    if isinstance(thing, dict):
        return [leaf for value in thing.values() for leaf in _values(value)]
    if isinstance(thing, list):
        return [leaf for value in thing for leaf in _values(value)] or [[]]
    return [thing]


def test_what_is_missing_is_left_out(shipped):
    names = sample_profile(Direction.ENTER, NOW).keys() - {"email", "segment_events"}
    profiles = [
        _profile(),
        _profile(**dict.fromkeys(names, "")),
        _profile(**dict.fromkeys(names)),
    ]

    users = shipped("enter", profiles)

    assert users[0] == users[1] == users[2]
    assert users[0]["attributes"].keys() == {"email", "custom"}
    assert not any(value in (None, "", []) for value in _values(users[0]))


def test_values_are_used_where_they_belong(shipped):
    profile = _profile(
        at="2026-11-01T12:00:00.872199615+02:00",
        age="34",
        score_recency="81.5",
        score_quantity="-7",
        score_volatility="old",
        consent_email_status="t",
        consent_gdpr_status="",
        consent_sms_status="F",
        first_name="Ann",
        phone="+14155550123",
    )

    [user] = shipped("enter", [profile])

    assert user["attributes"] == {
        "email": "ann@example.com",
        "age": 34,
        "name": "Ann",
        "phone_number": "+14155550123",
        "email_optin": True,
        "sms_optin": False,
        "custom": {"lytics_computed_attr": ["vip"], "score_recency": 81.5, "score_quantity": -7},
    }
    assert user["events"][0]["timestamp"] == "2026-11-01T10:00:00.872199Z"


def test_a_change_has_no_event_and_moves_nobody(shipped):
    [entered] = shipped("enter", [_profile("change", status="x")])
    [left] = shipped("exit", [_profile("change")])

    assert entered.keys() == {"identifiers", "attributes"}
    assert entered["attributes"]["custom"] == {"status": "x"}
    assert left is None


def test_a_template_on_the_wrong_direction_changes_no_membership(shipped):
    [entered] = shipped("enter", [_profile("exit")])
    [left] = shipped("exit", [_profile("enter")])

    assert "custom" not in entered["attributes"]
    assert left is None


@pytest.mark.parametrize("direction", list(Direction))
def test_each_direction_has_a_sample_with_one_event(direction):
    [event] = sample_profile(direction, NOW)["segment_events"]

    assert event["event"] == direction
    assert (direction.value in event) is (direction is not Direction.CHANGE)

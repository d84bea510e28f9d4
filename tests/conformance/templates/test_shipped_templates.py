import random
from datetime import UTC, datetime, timedelta, timezone

import pytest

from worker.adapters.template_samples import sample_profile
from worker.contract.words import Direction


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


@pytest.mark.parametrize(
    ("fields", "identifiers"),
    [
        ({"email": "Ann@Example.com"}, {"email": "ann@example.com"}),
        (
            {"_id": "1007", "payload_id": "9", "_uid": "u"},
            {"email": "ann@example.com", "custom": {"lytics_id": "1007"}},
        ),
        ({"_id": 1007}, {"email": "ann@example.com", "custom": {"lytics_id": "1007"}}),
        ({"payload_id": "9"}, {"email": "ann@example.com"}),
        ({"email": "", "payload_id": "9"}, {"custom": {"lytics_id": "9"}}),
        ({"email": None, "_id": "null"}, {}),
        ({"email": "undefined", "_id": "0"}, {}),
        ({"email": "anonymous", "_id": ""}, {}),
    ],
)
def test_all_three_mean_the_same_person(shipped, fields, identifiers):
    users = [
        shipped(name, [_profile(kind, **fields)])[0]
        for name, kind in (("enter", "enter"), ("exit", "exit"), ("exit-event", "exit"))
    ]

    assert [user["identifiers"] for user in users] == [identifiers] * 3


def _values(thing):
    if isinstance(thing, dict):
        return [leaf for value in thing.values() for leaf in _values(value)]
    if isinstance(thing, list):
        return [leaf for value in thing for leaf in _values(value)] or [[]]
    return [thing]


def test_what_is_missing_is_left_out(shipped):
    names = sample_profile(Direction.ENTER).keys() - {"email", "segment_events"}
    profiles = [
        _profile(),
        _profile(**dict.fromkeys(names, "")),
        _profile(**dict.fromkeys(names)),
    ]

    users = shipped("enter", profiles)

    assert users[0] == users[1] == users[2]
    assert users[0]["attributes"].keys() == {"email", "custom"}
    assert not any(value in (None, "", []) for value in _values(users[0]))


def test_values_have_the_types_that_insider_expects(shipped):
    given = {
        "age": ["34", 34, "34.5", "-1.05", "0", "old", "1e5", "", ".", "12.", True, "1" * 20],
        "consent_gdpr_status": ["t", "f", True, False, "true", "FALSE", "yes", "", 1, None, "T"],
    }
    ages = shipped("enter", [_profile(age=value) for value in given["age"]])
    optins = shipped(
        "enter", [_profile(consent_gdpr_status=value) for value in given["consent_gdpr_status"]]
    )

    absent = "absent"
    assert [user["attributes"].get("age", absent) for user in ages] == [
        *(34, 34, 34.5, -1.05, 0),
        *([absent] * 7),
    ]
    assert [user["attributes"].get("gdpr_optin", absent) for user in optins] == [
        *(True, False, True, False, True, False),
        *([absent] * 4),
        True,
    ]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("2026-11-01T10:00:00.872199615Z", "2026-11-01T10:00:00.872199Z"),
        ("2026-11-01T10:00:00Z", "2026-11-01T10:00:00Z"),
        ("2026-11-01T10:00:00.5Z", "2026-11-01T10:00:00.5Z"),
        ("2026-11-01T10:00:00.123456789+02:00", "2026-11-01T08:00:00.123456Z"),
        ("2024-02-29T23:30:00-05:30", "2024-03-01T05:00:00Z"),
        ("2026-01-01T00:15:59+00:30", "2025-12-31T23:45:59Z"),
        ("2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00Z"),
    ],
)
def test_times_are_sent_in_microseconds_of_utc(shipped, given, sent):
    [user] = shipped("enter", [_profile(at=given)])

    assert user["events"][0]["timestamp"] == sent


def test_any_offset_is_brought_to_utc(shipped):
    seeded = random.Random(7)
    start = datetime(1999, 12, 28, tzinfo=UTC)
    instants = [
        (start + timedelta(minutes=seeded.randrange(20_000_000))).astimezone(
            timezone(timedelta(minutes=15 * seeded.randrange(-56, 57)))
        )
        for _ in range(40)
    ]

    users = shipped("enter", [_profile(at=instant.isoformat()) for instant in instants])

    assert [user["events"][0]["timestamp"] for user in users] == [
        instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for instant in instants
    ]


def test_a_change_has_no_event_and_moves_nobody(shipped):
    [entered] = shipped("enter", [_profile("change", status="x")])
    [left] = shipped("exit", [_profile("change")])

    assert entered.keys() == {"identifiers", "attributes"}
    assert entered["attributes"]["custom"] == {"status": "x"}
    assert left.keys() == {"identifiers"}


def test_a_template_on_the_wrong_direction_changes_no_membership(shipped):
    [entered] = shipped("enter", [_profile("exit")])
    [left] = shipped("exit", [_profile("enter")])

    assert entered["attributes"]["custom"] == {}
    assert "custom" not in left


@pytest.mark.parametrize("direction", list(Direction))
def test_each_direction_has_a_sample_with_one_event(direction):
    [event] = sample_profile(direction)["segment_events"]

    assert event["event"] == direction
    assert (direction.value in event) is (direction is not Direction.CHANGE)

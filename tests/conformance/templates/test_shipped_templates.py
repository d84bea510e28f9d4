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


PEOPLE = [
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
]


@pytest.mark.parametrize(
    ("name", "kind"), [("enter", "enter"), ("exit", "exit"), ("exit-event", "exit")]
)
def test_all_three_mean_the_same_person(shipped, name, kind):
    users = shipped(name, [_profile(kind, **fields) for fields, _ in PEOPLE])

    assert [user["identifiers"] for user in users] == [expected for _, expected in PEOPLE]


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


ABSENT = None
NUMBERS = [
    *[("34", 34), (34, 34), ("34.5", 34.5), ("-1.05", -1.05), ("0", 0), ("007", 7)],
    *[(wrong, ABSENT) for wrong in ("old", "1e5", "", ".", "12.", "-", "1" * 20, True, None, [])],
]
STATEMENTS = [
    *[("t", True), ("f", False), (True, True), (False, False), ("true", True), ("FALSE", False)],
    *[(wrong, ABSENT) for wrong in ("yes", "", "1", 1, 0, None, {})],
]
TIMES = [
    ("2026-11-01T10:00:00.872199615Z", "2026-11-01T10:00:00.872199Z"),
    ("2026-11-01T10:00:00Z", "2026-11-01T10:00:00Z"),
    ("2026-11-01T10:00:00.5Z", "2026-11-01T10:00:00.5Z"),
    ("2026-11-01T10:00:00.123456789+02:00", "2026-11-01T08:00:00.123456Z"),
    ("2024-02-29T23:30:00-05:30", "2024-03-01T05:00:00Z"),
    ("2026-01-01T00:15:59+00:30", "2025-12-31T23:45:59Z"),
    ("2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00Z"),
]


def _instants():
    seeded = random.Random(7)
    start = datetime(1999, 12, 28, tzinfo=UTC)
    for _ in range(200):
        zone = timezone(timedelta(minutes=15 * seeded.randrange(-56, 57)))
        instant = (start + timedelta(minutes=seeded.randrange(20_000_000))).astimezone(zone)
        yield instant.isoformat(), instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("function", "table"),
    [
        ("number", NUMBERS),
        ("stated", STATEMENTS),
        ("microseconds", TIMES),
        ("microseconds", list(_instants())),
    ],
)
def test_values_are_what_insider_expects_or_absent(agreed_source, function, table):
    source = (
        "local event = import 'lytemplates.libsonnet';\n"
        "local values = import 'values.libsonnet';\n"
        f"[values.{function}(x) for x in event.get('given')]"
    )

    [values] = agreed_source(source, [{"given": [given for given, _ in table]}])

    assert values == [expected for _, expected in table]


def test_values_are_used_where_they_belong(shipped):
    profile = _profile(
        at="2026-11-01T12:00:00.872199615+02:00",
        age="34",
        score_recency="81.5",
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
        "custom": {"lytics_computed_attr": ["vip"], "score_recency": 81.5},
    }
    assert user["events"][0]["timestamp"] == "2026-11-01T10:00:00.872199Z"


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

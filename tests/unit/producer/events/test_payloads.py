"""Every form of payload becomes one event per segment event."""

import copy

import orjson
import pytest

from segrelay.producer.events.payloads import Refused, content_of, is_row
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.words import Direction
from tests.unit.producer.payload_samples import ENTER, NOW_US, WRAPPED, read, with_entry, wrapped

TIME_US = 1_793_527_200_872_199


def cloud_event(data):
    return {
        "specversion": "1.0",
        "id": "event-1",
        "source": "https://lytics.example.com",
        "type": "com.lytics.audience.user.event",
        "datacontenttype": "application/json",
        "time": "2026-11-01T10:00:02Z",
        "data": data,
    }


FORMS = {
    "wrapped": WRAPPED,
    "unwrapped": WRAPPED["data"],
    "array": [WRAPPED],
    "cloud event": cloud_event(WRAPPED["data"]),
    "cloud event of a wrapped one": cloud_event(WRAPPED),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_event(form):
    [event] = read(orjson.dumps(form))

    assert event.profile_key == "email:ann@example.com"
    assert (event.audience, event.direction, event.time_us) == ("vip", Direction.ENTER, TIME_US)
    assert event.profile["segment_events"] == [ENTER]


def test_three_segment_events_become_three_events_with_one_each():
    exit_entry = {"id": "b" * 32, "slug": "b", "event": "exit", "exit": "2026-11-01T10:00:00Z"}
    change = {"id": "c" * 32, "slug": "c", "event": "change"}

    events = read(orjson.dumps(wrapped(segment_events=[ENTER, exit_entry, change])))

    assert [event.direction for event in events] == ["enter", "exit", "change"]
    assert [event.profile["segment_events"] for event in events] == [
        [ENTER],
        [exit_entry],
        [change],
    ]
    assert all(event.profile["first_name"] == "Ann" for event in events)


def test_a_bad_neighbour_costs_nothing():
    found = read(orjson.dumps([WRAPPED, 7, wrapped(segment_events=[ENTER, {"event": "enter"}])]))

    assert [type(item) for item in found] == [Event, Refused, Event, Refused]


CHANGE = {"email": "a@b.c", "segment_events": [{"slug": "v", "event": "change"}]}


@pytest.mark.parametrize(
    ("payload", "expected_us"),
    [
        (wrapped(**CHANGE), 1_793_527_204_651_979),
        (cloud_event(CHANGE), 1_793_527_202_000_000),
        (CHANGE, NOW_US),
        ({"data": CHANGE, "meta": None}, NOW_US),
    ],
    ids=["meta", "cloud event", "arrival", "no meta"],
)
def test_a_change_has_the_time_of_its_payload(payload, expected_us):
    [event] = read(orjson.dumps(payload))

    assert (event.direction, event.time_us) == ("change", expected_us)


@pytest.mark.parametrize(
    ("payload", "payload_id"),
    [(WRAPPED, "1000000000000000007"), (wrapped(payload_id="mine"), "mine")],
)
def test_the_payloads_own_id_is_added_as_payload_id_where_there_is_none(payload, payload_id):
    [event] = read(orjson.dumps(payload))

    assert event.profile["payload_id"] == payload_id
    assert "_id" not in event.profile


@pytest.mark.parametrize(
    ("profile", "identity", "key"),
    [
        ({"email": "  Ann@Example.COM "}, "email", "email:ann@example.com"),
        ({}, "id", "id:1000000000000000007"),
        ({"_id": "Abc "}, "id", "id:Abc"),
        ({"_id": 42}, "id", "id:42"),
        ({"_id": ""}, "id", "id:1000000000000000007"),
        ({"customer": 9_007_199_254_740_993}, "customer", "customer:9007199254740993"),
        ({"Work_Email": "A@B.c"}, "Work_Email", "Work_Email:A@B.c"),
        ({"work_email": "A@B.c"}, "work_email", "work_email:a@b.c"),
        ({"customer": "Zoë"}, "customer", "customer:Zoë"),
    ],
)
def test_the_key_is_one_text_of_the_identity_field(profile, identity, key):
    [event] = read(orjson.dumps(wrapped(**profile)), identity=identity)

    assert event.profile_key == key


def test_the_event_id_of_a_cloud_event_is_nobodys_identity():
    [refused] = read(orjson.dumps(cloud_event(WRAPPED["data"])), identity="id")

    assert refused.reason == "no_identity"


def test_what_a_program_hands_over_stays_as_it_was():
    for form in (WRAPPED, WRAPPED["data"], [WRAPPED], cloud_event(WRAPPED), with_entry(slug=None)):
        before = orjson.dumps(form)

        read(form, identity="id")

        assert orjson.dumps(form) == before


@pytest.mark.parametrize("direction", ["enter", "exit", "change"])
def test_the_content_that_is_kept_gives_the_same_event_again(direction):
    payload = with_entry(event=direction, exit="2026-11-01T10:00:00.872199615Z")
    [event] = read(orjson.dumps(payload), identity="id")

    [again] = read(content_of(event), identity="id")

    assert again == event


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_refused_event_is_kept_alone_in_its_form(form):
    form = copy.deepcopy(form)
    payload = form[0] if isinstance(form, list) else form
    while "segment_events" not in payload:
        payload = payload["data"]
    payload["segment_events"] = [ENTER, {"slug": "b", "event": "exit", "exit": "never"}]

    _, refused = read(orjson.dumps(form))
    [again] = read(refused.content)

    assert (refused.reason, refused.audience) == ("bad_time", "b")
    assert (again.reason, again.audience) == ("bad_time", "b")
    assert b"vip" not in refused.content


@pytest.mark.parametrize(
    "slug", [None, "  vip "], ids=["learned by its id", "with space around it"]
)
def test_an_event_and_its_template_have_the_same_slug(slug):
    [event] = read(orjson.dumps(with_entry(slug=slug)))

    assert (event.audience, event.profile["segment_events"][0]["slug"]) == ("vip", "vip")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"email": "ann@example.com"}, True),
        ({"data": {"email": "ann@example.com"}, "meta": {}}, True),
        ({"data": 7}, True),
        (WRAPPED, False),
        (WRAPPED["data"], False),
        ({"segment_events": None}, False),
        ({}, False),
        ([], False),
    ],
)
def test_a_row_of_a_table_is_known(value, expected):
    assert is_row(value) is expected

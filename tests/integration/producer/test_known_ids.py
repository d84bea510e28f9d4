"""The id of an audience in events that were made without one."""

import orjson
import pytest

from segrelay.ops.audiences import Person, exit_event
from segrelay.producer.events.payloads import Payload, RowForm
from segrelay.producer.publishing.audiences import AudienceStore, named_audience
from segrelay.producer.publishing.published import JobPosition, PublishOptions
from segrelay.worker.contract import keys
from segrelay.worker.errors import UsageWrong
from tests.integration.producer.redis_contents import entries
from tests.unit.producer.payload_samples import VIP, WRAPPED

AT = "2026-11-20T06:00:00Z"
TIME_US = 1_795_154_400_000_000
OTHER = "f" * 32
ROW = RowForm("vip", "", "enter", AT)


def ids(client):
    """Return the id in what waits, by email."""
    return {
        entry.profile["email"]: entry.profile["segment_events"][0].get("id")
        for entry in entries(client)
    }


def bare(**entry):
    return {"slug": "vip", "event": "enter", "enter": AT, **entry}


def payload(email, **entry):
    return orjson.dumps({"email": email, "segment_events": [bare(**entry)]})


def publish_everything(publisher, position=1):
    """Publish a payload, rows in both ways, and a state event, none of which tells an id."""
    publisher.publish([payload("payload@example.com")])
    row = Payload(b"", {"email": "row@example.com"}, 1)
    own = Payload(b"", [{"email": "array@example.com"}], 2)
    draft = publisher.draft([row, own], ROW, PublishOptions(job="rows"))
    publisher.write_draft(draft, JobPosition("rows", position, "s"))
    person = Person("email:gone@example.com", {"email": "gone@example.com"})
    publisher.publish([exit_event(person, "vip", TIME_US)])


EVERYBODY = {"payload@example.com", "row@example.com", "array@example.com", "gone@example.com"}


def test_an_id_that_is_known_is_in_all_events_that_have_none(publisher, client):
    publish_everything(publisher)
    before = ids(client)
    publisher.publish([orjson.dumps(WRAPPED)])
    publish_everything(publisher, position=2)

    assert before == dict.fromkeys(EVERYBODY)
    assert ids(client) == dict.fromkeys({*EVERYBODY, "ann@example.com"}, VIP)


@pytest.mark.parametrize("told_id", ["", "  ", None])
def test_an_empty_id_is_none(publisher, client, told_id):
    client.hset(keys.AUDIENCES, VIP, "vip")

    publisher.publish([payload("ann@example.com", id=told_id)])

    assert ids(client) == {"ann@example.com": VIP}


def test_what_an_event_tells_itself_comes_first(publisher, client):
    client.hset(keys.AUDIENCES, VIP, "vip")
    own = RowForm("vip", OTHER, "enter", AT)

    publisher.publish([payload("payload@example.com", id=OTHER)])
    row = Payload(b"", {"email": "row@example.com"}, 1)
    draft = publisher.draft([row], own, PublishOptions(job="rows"))
    publisher.write_draft(draft, JobPosition("rows", 1, "s"))

    assert ids(client) == dict.fromkeys(["payload@example.com", "row@example.com"], OTHER)


def test_of_several_ids_it_is_always_the_same(publisher, client):
    client.hset(keys.AUDIENCES, mapping={OTHER: "vip", VIP: "vip"})

    publisher.publish([payload("learned@example.com")])

    assert ids(client) == {"learned@example.com": VIP}


def test_an_id_that_was_learned_elsewhere_is_known_a_second_later(client):
    now = 0.0
    store = AudienceStore(client, now=lambda: now)
    before = store.id_of("vip")
    client.hset(keys.AUDIENCES, VIP, "vip")

    too_soon, now = store.id_of("vip"), 1.0

    assert (before, too_soon, store.id_of("vip")) == ("", "", VIP)


@pytest.mark.parametrize(
    ("name", "told_id", "expected"),
    [
        ("vip", "", ("vip", "")),
        ("vip", OTHER, ("vip", OTHER)),
        (VIP, "", ("gold", VIP)),
        (VIP, VIP, ("gold", VIP)),
        (OTHER, "", ("silver", OTHER)),
    ],
)
def test_an_audience_is_named_by_slug_or_id(client, name, told_id, expected):
    client.hset(keys.AUDIENCES, VIP, "gold")

    found = named_audience(AudienceStore(client), name, told_id, look_up=lambda _: "silver")

    assert found == expected


@pytest.mark.parametrize(
    ("name", "told_id", "says"),
    [
        (OTHER, "", "slug is not known yet"),
        (VIP, OTHER, "is named by its id"),
        ("vip", VIP, "known as 'gold'"),
    ],
)
def test_an_audience_that_can_not_be_told_is_refused(client, name, told_id, says):
    client.hset(keys.AUDIENCES, VIP, "gold")

    with pytest.raises(UsageWrong, match=says):
        named_audience(AudienceStore(client), name, told_id)

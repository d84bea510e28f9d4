"""The quarantine on a real Redis."""

import orjson
import pytest

from segrelay.ops.kept import QuarantinedRecords
from segrelay.ops.state.waiting import EVERYTHING
from segrelay.producer.events.payloads import Refused
from segrelay.producer.publishing.published import CapacityMeter, PublishOptions
from segrelay.producer.publishing.quarantine import Quarantine
from tests.configuration import trigger
from tests.integration.producer.redis_contents import counts, entries
from tests.unit.producer.payload_samples import person

CAP = 1_000_000


def record(number=0, **changes):
    fields = {"reason": "no_trigger", "audience": "vip", "message": "m", "content": b"%d" % number}
    return Refused(**(fields | changes))


@pytest.fixture
def quarantine(client):
    return Quarantine(client)


def payload(number=0, **entry):
    return orjson.dumps(person(number, **entry))


def test_the_same_content_is_kept_once_and_counted(quarantine):
    quarantine.keep([record(), record()], now_ms=1_000, cap_bytes=CAP)
    quarantine.keep([record(reason="bad_time")], now_ms=2_000, cap_bytes=CAP)

    [kept] = quarantine.records()
    assert (kept.times, kept.first_seen_ms, kept.last_seen_ms) == (3, 1_000, 2_000)
    assert kept.reason == "bad_time"
    assert quarantine.text(kept.id) == b"0"


def test_the_oldest_go_when_there_is_too_much_and_are_counted(quarantine):
    for number in range(20):
        quarantine.keep([record(number)], now_ms=number, cap_bytes=5_000)

    totals = quarantine.totals()
    assert totals.bytes <= 5_000
    assert totals.records + totals.dropped == 20
    assert min(kept.first_seen_ms for kept in quarantine.records()) == totals.dropped


def test_what_is_removed_frees_its_bytes(quarantine, client):
    quarantine.keep([record(number) for number in range(10)], now_ms=1, cap_bytes=CAP)

    removed = quarantine.remove([kept.id for kept in quarantine.records()] + ["unknown"])

    assert removed == 10
    assert (quarantine.totals().bytes, client.keys()) == (0, [b"{quarantine}:totals"])


@pytest.mark.parametrize("skip_hook", [True, False])
def test_retry_places_what_now_has_a_trigger_and_nothing_else(
    configure, publisher_of, quarantine, client, *, skip_hook
):
    publisher_of(configure()).publish(
        [payload(n, id=None, slug="gold") for n in range(3)] + [payload(9, enter="never"), b"{"],
        PublishOptions(skip_hook=skip_hook, job="load"),
    )

    store = QuarantinedRecords(client, configure(trigger("gold-enter", audiences=["gold"])))
    work = store.replay(EVERYTHING)

    assert (work.count, sum(work.steps())) == (5, 3)
    assert work.left_out == {"bad_time": 1, "unreadable": 1}
    assert quarantine.totals().records == 2
    assert {(e.lane, e.trigger, e.header.skip_hook) for e in entries(client)} == {
        ("job.load", "gold-enter", skip_hook)
    }
    assert counts(client)["job|load|accepted"] == 3


def test_a_change_without_a_time_keeps_its_arrival(configure, publisher_of, quarantine, client):
    change = {"email": "ann@example.com", "segment_events": [{"slug": "vip", "event": "change"}]}
    publisher_of(configure()).publish([orjson.dumps(change)])
    [kept] = quarantine.records()

    store = QuarantinedRecords(client, configure(trigger("vip-change", on="change")))
    assert sum(store.replay(EVERYTHING).steps()) == 1

    [entry] = entries(client)
    assert entry.header.time_us // 1_000 == kept.first_seen_ms


def test_of_a_small_redis_it_takes_an_eighth(configure, client):
    client.config_set("maxmemory", 800_000_000)
    try:
        assert CapacityMeter(client, configure()).quarantine_bytes(1 << 30) == 100_000_000
    finally:
        client.config_set("maxmemory", 0)

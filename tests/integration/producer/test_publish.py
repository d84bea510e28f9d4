"""Publishing on a real Redis."""

from dataclasses import replace

import orjson
import pytest

from segrelay.producer.events.payloads import Payload
from segrelay.producer.publish import open_publisher
from segrelay.producer.publishing.published import Portion, PublishOptions
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import UsageWrong
from tests.configuration import trigger
from tests.integration.producer.redis_contents import counts, entries
from tests.unit.producer.payload_samples import ENTER, VIP, WRAPPED, wrapped

TIME_US = 1_793_527_200_872_199


def payload(number=0, **profile):
    return orjson.dumps(wrapped(email=f"person{number}@example.com", **profile))


def test_an_event_becomes_one_delivery_in_its_partition(publisher, client):
    published = publisher.publish([orjson.dumps(WRAPPED)])

    [entry] = entries(client)
    digest = digest_of("email:ann@example.com")
    assert (published.payloads, published.events, published.accepted) == (1, 1, 1)
    assert (entry.lane, entry.trigger) == ("live", "vip-enter")
    assert entry.partition == partition_of("email:ann@example.com", 16)
    assert entry.header[:5] == (digest, "vip", Direction.ENTER, TIME_US, False)
    assert entry.profile == WRAPPED["data"] | {"payload_id": WRAPPED["id"]}
    assert counts(client) == {"accepted|vip-enter": 1}


def test_each_trigger_that_wants_an_event_gets_a_delivery(configure, publisher_of, client):
    settings = configure(
        trigger("one"),
        trigger("all", audiences=["*"]),
        trigger("by-id", audiences=[VIP]),
        trigger("other", audiences=["x"]),
    )

    published = publisher_of(settings).publish([orjson.dumps(WRAPPED)])

    assert published.accepted == 3
    assert {entry.trigger for entry in entries(client)} == {"one", "all", "by-id"}


def test_a_trigger_by_id_matches_as_soon_as_the_id_is_known(configure, publisher_of):
    publisher = publisher_of(configure(trigger("by-id", audiences=[VIP])))
    only_slug = payload(segment_events=[{k: v for k, v in ENTER.items() if k != "id"}])

    before = publisher.publish([only_slug])
    publisher.publish([payload()])
    after = publisher.publish([only_slug])

    assert (before.unmatched, after.accepted) == (1, 1)


def test_export_fields_are_all_that_reaches_redis(configure, publisher_of, client):
    settings = configure(trigger("vip-enter", export_fields=["first_name"]))

    publisher_of(settings).publish([payload(secret="s")])

    assert set(entries(client)[0].profile) == {"first_name", "email", "segment_events"}


def test_a_trigger_overrules_skip_hook(configure, publisher_of, client):
    settings = configure(trigger("default"), trigger("hooks", skip_hook=False))

    publisher_of(settings).publish([payload()], PublishOptions(skip_hook=True))

    flags = {entry.trigger: entry.header.skip_hook for entry in entries(client)}
    assert flags == {"default": True, "hooks": False}


def test_an_event_says_itself_whether_it_starts_journeys_and_repairs(publisher, client):
    profile = {"email": "ann@example.com", "segment_events": [ENTER]}
    event = Event("email:ann@example.com", "vip", Direction.ENTER, 1, profile, repair=True)

    publisher.publish([event, replace(event, time_us=2, repair=False, skip_hook=True)])

    headers = [entry.header for entry in entries(client)]
    assert [(one.skip_hook, one.repair) for one in headers] == [(False, True), (True, False)]


def test_what_nobody_thought_of_costs_one_event_and_not_the_others(publisher, client):
    profile = {"email": "ann@example.com", "segment_events": [ENTER], "odd": object()}
    unheard_of = Event("email:ann@example.com", "vip", Direction.ENTER, 7, profile)
    no_key = Event(None, "vip", Direction.ENTER, 7, {"segment_events": [ENTER]})

    published = publisher.publish([unheard_of, payload(1), no_key])

    assert (published.accepted, len(entries(client))) == (1, 1)
    assert [(one.line, one.reason) for one in published.problems] == [
        (1, "unreadable"),
        (3, "unreadable"),
    ]


def test_two_answers_add_up_to_what_became_of_both(publisher):
    one, other = publisher.publish([payload(0), b"{"]), publisher.publish([payload(0), payload(1)])

    both = one + other

    assert both.document() == {
        "payloads": 4, "events": 3, "accepted": 3, "unmatched": 0, "refused": 1, "repeated": 0,
        "without_hook": 0, "older_than_ledger": 0,
        "problems": [
            {"line": 2, "index": 0, "reason": "unreadable", "message": one.problems[0].message}
        ],
    }  # fmt: skip
    (stream,) = one.entries
    assert both.entries[stream].first == one.entries[stream].first
    assert both.entries[stream].last == other.entries[stream].last


def test_an_application_publishes_with_the_configuration_that_the_commands_use(configure, client):
    with open_publisher(configure().source) as publisher:
        published = publisher.publish([payload()])

    assert published.document()["accepted"] == len(entries(client)) == 1


def test_what_is_refused_or_unmatched_costs_the_others_nothing(publisher, client):
    stranger = payload(1, segment_events=[{**ENTER, "id": None, "slug": "vipp"}])

    published = publisher.publish(
        [payload(0), b"{", b"7", stranger, b"[%s, null]" % payload(2), payload(3)]
    )

    assert (published.payloads, published.events) == (7, 4)
    assert (published.accepted, published.unmatched, published.refused) == (3, 1, 3)
    assert [(p.line, p.index, p.reason) for p in published.problems] == [
        (2, 0, "unreadable"),
        (3, 0, "unreadable"),
        (5, 1, "unreadable"),
    ]
    kept = sorted((record.reason, record.audience) for record in Quarantine(client).records())
    assert kept == [("no_trigger", "vipp"), *[("unreadable", "")] * 3]


def test_a_profile_that_is_too_large_is_refused_unless_few_fields_are_exported(
    configure, publisher_of
):
    large = payload(big="x" * 5_000_000)
    whole = publisher_of(configure(trigger("vip-enter")))
    few = publisher_of(configure(trigger("vip-enter", export_fields=["first_name"])))

    assert [problem.reason for problem in whole.publish([large]).problems] == ["too_large"]
    assert few.publish([large]).accepted == 1


def test_a_large_profile_is_compressed(publisher, client):
    publisher.publish([payload(big="x" * 100_000)])

    [entry] = entries(client)
    keys = PartitionKeys("insider", entry.partition)
    [(_, fields)] = client.xrange(keys.stream("live|vip-enter"))
    assert len(fields[b"p"]) < 2_000
    assert entry.profile["big"] == "x" * 100_000


def test_a_partition_is_woken_once_until_a_drain_has_begun(publisher, waker, client):
    partition = partition_of("email:person0@example.com", 16)

    first = publisher.publish([payload(0)])
    second = publisher.publish([payload(0)], PublishOptions("backfill"))
    client.delete(PartitionKeys("insider", partition).wakeup)
    third = publisher.publish([payload(0)], PublishOptions("backfill"))

    assert first.woken == third.woken == (("insider", partition),)
    assert second.woken == ()
    assert waker.woken == [("insider", partition, "live"), ("insider", partition, "backfill")]


def test_a_job_has_a_lane_of_its_own_and_starts_no_journeys(publisher, client):
    published = publisher.publish([payload(n) for n in range(5)], PublishOptions(job="load-1"))

    assert {(one.lane, one.header.skip_hook) for one in entries(client)} == {("job.load-1", True)}
    assert (counts(client)["job|load-1|accepted"], published.without_hook) == (5, 5)


def test_a_chunk_that_an_earlier_run_published_is_ignored(publisher, client):
    chunk = [payload(number) for number in range(20)]

    publisher.publish(chunk, PublishOptions(job="load"), position=20, source="file-a")
    onward = publisher.publish(chunk, PublishOptions(job="load"), position=40, source="file-a")
    behind = publisher.publish(chunk, PublishOptions(job="load"), position=20, source="file-a")
    again = publisher.publish(chunk, PublishOptions(job="load"), position=40, source="file-a")
    other_file = publisher.publish(chunk, PublishOptions(job="load"), position=20, source="file-b")

    assert (again.accepted, again.repeated, again.woken) == (0, 20, ())
    assert (behind.accepted, behind.repeated, behind.woken) == (0, 20, ())
    assert (onward.accepted, other_file.accepted) == (20, 20)
    assert counts(client)["job|load|accepted"] == len(entries(client)) == 60


@pytest.mark.parametrize(
    ("lane", "job"),
    [("fast", ""), ("", ""), ("job.", ""), ("job.A", ""), ("live", "A b"), ("live", "ä")],
)
def test_other_lanes_are_refused(publisher, lane, job):
    with pytest.raises(UsageWrong):
        publisher.publish([payload()], PublishOptions(lane, job))


def test_an_id_without_a_slug_is_placed_once_the_slug_was_learned(publisher, client):
    only_id = payload(segment_events=[{**ENTER, "slug": None}])

    before = publisher.publish([only_id])
    publisher.publish([payload()])
    after = publisher.publish([only_id])

    assert [problem.reason for problem in before.problems] == ["unknown_audience"]
    assert before.problems[0].audience == VIP
    assert after.accepted == 1
    assert client.hgetall("{segrelay}:audiences") == {VIP.encode(): b"vip"}


def test_what_one_publisher_learned_another_knows(configure, publisher_of):
    settings = configure()
    one, other = publisher_of(settings), publisher_of(settings)
    other.publish([payload(segment_events=[{**ENTER, "id": None}])])
    one.publish([payload()])

    assert other.publish([payload(segment_events=[{**ENTER, "slug": None}])]).accepted == 1


def parsed(*payloads):
    return [Payload(text, orjson.loads(text)) for text in payloads]


def test_groups_that_are_published_together_have_a_result_each(publisher, client):
    groups = [
        parsed(payload(0), b'{"data": 1}'),
        parsed(b"[]"),
        parsed(payload(1), payload(0), payload(1, segment_events=[])),
    ]

    found = publisher.publish_each(groups, portion=Portion(9, 10**6), together=Portion(99, 10**6))

    digests = [digest_of(f"email:person{number}@example.com") for number in range(2)]
    assert [(one.accepted, one.refused, one.people) for one in found] == [
        (1, 1, (digests[0],)),
        (0, 1, ()),
        (2, 1, (digests[1], digests[0])),
    ]
    assert [[problem.line for problem in one.problems] for one in found] == [[2], [1], [3]]
    assert len(entries(client)) == 3


def test_a_group_is_taken_up_to_its_own_limit_and_groups_up_to_that_of_all(publisher, client):
    groups = [parsed(*(payload(10 * group + n) for n in range(3))) for group in range(3)]

    found = publisher.publish_each(groups, portion=Portion(2, 10**6), together=Portion(3, 10**6))

    assert [one.accepted for one in found] == [2, 2]
    assert len(entries(client)) == 4

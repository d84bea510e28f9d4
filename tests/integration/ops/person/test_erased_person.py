"""Somebody who is erased is found nowhere any more, and everybody else is as before."""

from contextlib import contextmanager

import orjson
import pytest

from segrelay.worker.batch.partition import Intent
from segrelay.worker.contract import keys
from segrelay.worker.contract.events import UNREADABLE
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.processes import WebhookRequest, keep_requests
from segrelay.worker.contract.redis.connection import connect, now_ms
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from segrelay.worker.errors import ConfigurationInvalid
from tests.integration.ops.relay import payload
from tests.interruptions import values_of
from tests.sealed import is_sealed

pytestmark = pytest.mark.also_sealed

QUARANTINE_TEXTS = keys.quarantine("texts")
WHO, ELSE = "ann.lee@example.com", "bob@example.com"


@pytest.fixture(autouse=True)
def _plain(redis_url):
    with plain_dumps(redis_url):
        yield


@contextmanager
def plain_dumps(redis_url):
    """Let what Redis dumps not be compressed, so that it can be searched."""
    with connect(redis_url) as client:
        client.config_set("rdbcompression", "no")
        yield
        client.config_set("rdbcompression", "yes")


def everything(client):
    """Return the bytes of all that Redis holds: names of keys, and their values."""
    return parts_of(values_of(client, list(client.scan_iter())))


def parts_of(value):
    if isinstance(value, bytes):
        return [value]
    within = value.items() if isinstance(value, dict) else value
    return [part for each in within if not isinstance(each, float) for part in parts_of(each)]


def dumps(client):
    """Return all values as Redis writes them into its files, with bytes of deleted entries."""
    pipe = client.pipeline(transaction=False)
    for name in client.scan_iter():
        pipe.dump(name)
    return pipe.execute()


def needles(*emails):
    """Return by what people are found: addresses, and digests in both notations."""
    digests = [digest_of(f"email:{email}") for email in emails]
    found = [email.encode() for email in emails]
    return found + [part for digest in digests for part in (digest, digest.hex().encode())]


def traces(client, *emails):
    """Return what is known of people."""
    wanted = needles(*emails)
    return sorted(text for text in everything(client) for needle in wanted if needle in text)


def left_of(client, *emails):
    """Return what is left of people, also where it can't be read any more."""
    texts, wanted = everything(client) + dumps(client), needles(*emails)
    return [text for text in texts for needle in wanted if needle in text]


def erase(call, *arguments, code=0):
    result = call("erase", *arguments, "--yes", "--json")
    assert result.exit_code == code, result.output
    return orjson.loads(result.stdout)


@pytest.fixture
def known(relay):
    return everything_of_a_person(relay)


def everything_of_a_person(relay):
    """Let there be everything that there can be of a person."""
    for who in (WHO, ELSE):  # apart: an entry of the outcome log is written anew as a whole
        relay.deliver(payload(who))
    relay.deliver(payload(WHO, "gold", minute=1))
    relay.publish(payload(WHO, minute=-5))  # superseded: a row of the log
    relay.publish(payload(WHO, "silver", minute=2))
    relay.spoil_profiles()
    relay.drain()
    relay.publish(payload(WHO, "late", minute=3), payload(WHO, "waits", minute=4))
    broken = payload(WHO)
    broken["data"]["segment_events"][0]["enter"] = "no time"
    relay.publish(broken)
    keep_requests(
        relay.client,
        [
            WebhookRequest("req-0000000000000001", 200, people=[digest_of(f"email:{WHO}")]),
            WebhookRequest("req-0000000000000002", 200, people=[digest_of(f"email:{ELSE}")]),
        ],
    )
    return relay


def test_nothing_is_left_of_a_person_and_of_nobody_else_anything_is_gone(call, known):
    assert traces(known.client, WHO)
    of_others = traces(known.client, ELSE)

    receipt = erase(call, WHO)

    assert left_of(known.client, WHO) == []
    assert traces(known.client, ELSE) == of_others
    assert WHO not in str(receipt)
    assert receipt["digest"] == digest_of(f"email:{WHO}").hex()
    assert receipt["erased"]["waiting"] == 2
    # One of the two that are damaged is superseded; what is sealed and damaged is dead before that.
    assert receipt["erased"]["letters"] == 1 + is_sealed()
    assert receipt["erased"]["ledgers"] == 1
    assert receipt["erased"]["quarantine"] == 1
    known.status()


def test_what_is_damaged_stops_nothing_and_is_told(call, known):
    unread = payload(WHO)
    del unread["data"]["segment_events"][0]["enter"]
    known.publish(unread)
    damage(known.client, QUARANTINE_TEXTS)

    listed = call("quarantine", "list", "--json")
    replayed = call("quarantine", "replay", "--all", "--json")
    told = call("why", WHO, "--json")
    receipt = erase(call, WHO)

    assert (listed.exit_code, replayed.exit_code, told.exit_code) == (0, 0, 0)
    assert receipt["erased"]["quarantine"] == 1
    assert receipt["damaged"] == {"quarantine": 1}


def damage(client, name):
    """Damage one of the values of a hash, as a disk does."""
    (field, value), *_ = client.hgetall(name).items()
    client.hset(name, field, value[:-6] + bytes(6))


def test_a_person_is_anonymous_at_insider_only_if_that_is_asked_for(call, known, sandbox):
    known.change(('"secret-token"', '"env:NOT_SET"'))
    held = left_of(known.client, WHO)
    with pytest.raises(ConfigurationInvalid, match="NOT_SET"):
        erase(call, WHO, "--anonymize")
    assert len(held) == len(left_of(known.client, WHO)) > 0, "without credentials nothing is erased"
    known.change(('"env:NOT_SET"', '"secret-token"'))
    erase(call, WHO)
    assert WHO in sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)

    receipt = erase(call, WHO, "--anonymize")

    assert receipt["insider"] == {"insider": "anonymized"}
    assert WHO not in sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
    assert sandbox.get("summary")["profiles"]["erased"] == 0
    unknown = erase(call, "nobody@example.com", "--anonymize", code=1)
    assert "404" in unknown["insider"]["insider"]


def test_members_that_syncs_know_are_erased(call, relay_of_a_sync):
    relay, who = relay_of_a_sync, "p3@example.com"

    assert erase(call, who)["erased"]["sync members"] == 1

    assert left_of(relay.client, who) == []


def test_entries_that_were_deleted_before_leave_no_bytes_unless_a_stream_is_too_long(call, relay):
    """They stand between others that wait, so that Redis has not freed them yet."""
    partition = PartitionKeys("insider", partition_of(f"email:{WHO}", 4))
    numbers = (f"p{n}@example.com" for n in range(100))
    beside = [each for each in numbers if partition_of(f"email:{each}", 4) == partition.number][:4]
    relay.publish(payload(beside[0]), payload(WHO), *map(payload, beside[1:]))
    (stream,) = [
        partition.stream(name.decode()) for name in relay.client.smembers(partition.streams)
    ]
    mine, last = (relay.client.xrange(stream)[at][0] for at in (1, -1))
    relay.client.xdel(stream, mine, last)
    waiting, before = relay.client.xrange(stream), relay.client.xinfo_stream(stream)
    assert left_of(relay.client, WHO) != []

    receipt = erase(call, WHO)

    assert left_of(relay.client, WHO) == []
    assert receipt["streams_too_long"] == 0
    assert relay.client.xrange(stream) == waiting
    after = relay.client.xinfo_stream(stream)
    for name in ("last-generated-id", "entries-added"):
        assert after[name] == before[name]
    with relay.client.pipeline() as pipe:
        for number in range(5_001):
            pipe.xadd(partition.responses, {"r": f"[{number}]"})
        first, *_ = pipe.execute()
    relay.client.xdel(partition.responses, first)
    relay.client.xadd(partition.responses, {"r": "[0]"})
    assert erase(call, WHO)["streams_too_long"] == 1, "it is told, and not written anew"


def test_an_intent_of_a_worker_that_is_gone_is_over_some_time_after_its_lease(call, relay):
    header = UNREADABLE._replace(digest=digest_of(f"email:{WHO}"), time_us=1)
    partition = PartitionKeys("insider", partition_of(f"email:{WHO}", 4))
    late_ms, until_ms = 1_000 * relay.settings.delivery.late_seconds, now_ms(relay.client)
    relay.client.hset(partition.lease, mapping={"token": "gone", "until": until_ms})
    relay.client.hset(partition.intents, "i", Intent("i", (("live|enter|1-0", header),)).dumps())

    erase(call, WHO)

    assert now_ms(relay.client) >= until_ms + late_ms > until_ms, "it may take effect until then"
    assert left_of(relay.client, WHO) == []


def test_files_that_were_exported_and_have_the_person_are_named(call, known, tmp_path):
    path = tmp_path / "outcomes.ndjson"
    call("outcomes", "export", path)
    call("outcomes", "export", tmp_path / "none.ndjson", "--until", "1h")
    assert digest_of(f"email:{WHO}").hex() in path.read_text()

    assert erase(call, WHO)["exported_files"] == [str(path)]
    path.unlink()
    assert erase(call, WHO)["exported_files"] == []
    assert known.status()["waiting"] == 0

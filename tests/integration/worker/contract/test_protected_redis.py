"""Who may work with a Redis whose data is sealed, and with one whose data stands open."""

import asyncio
import re
from contextlib import closing, contextmanager
from functools import partial

import orjson
import pytest

from segrelay.producer.events.payloads import Payload
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import JobPosition, PublishOptions
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.adapters.redis.partition import RedisPartition
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.protection import PROTECTION, SealedSecret
from segrelay.worker.contract.redis.claim import InstanceWatch, claim, compare, mismatches
from segrelay.worker.contract.redis.connection import connect_async
from segrelay.worker.errors import ConfigurationInvalid, RedisMismatch, SealedAnew
from tests.configuration import insider, settings_in, table, trigger
from tests.full import full
from tests.interruptions import InterruptedRedis

KEY, OTHER = f"{'A' * 43}=", f"{'B' * 42}A="
EVENT = (
    b'{"data": {"email": "ann.planted@example.com", "segment_events":'
    b' [{"slug": "vip", "event": "enter", "enter": "2026-11-24T10:00:00Z"}]}}'
)


@pytest.fixture
def configured(tmp_path, redis_url):
    """Return the settings of a process with this key; "" = it has no table of it."""

    def configured(key=""):
        tables = [insider(), trigger("vip-enter"), *([table("protection", key=key)] if key else ())]
        return settings_in(tmp_path, *tables, redis=redis_url, partitions=2)

    return configured


def publish(client, settings):
    publisher = Publisher(client, settings, waker=SilentWaker())
    return publisher.publish([EVENT], PublishOptions())


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((KEY,), (), r"sealed. Set \[protection\] key"),
        ((KEY,), (OTHER,), r"with the key [0-9a-f]{8}, .* has [0-9a-f]{8}:"),
        ((), (KEY,), "begin with an empty Redis"),
    ],
)
def test_a_redis_in_use_stays_sealed_or_open_and_others_write_nothing(
    client, configured, first, second, message
):
    publish(client, configured(*first))
    before, sealed = client.dbsize(), client.get(keys.PROTECTION)

    for begin in (claim, compare, publish):
        with pytest.raises(RedisMismatch, match=message):
            begin(client, configured(*second))
    assert client.dbsize() == before
    assert client.get(keys.PROTECTION) == sealed
    assert (sealed is not None) is bool(first)
    assert re.search(message, mismatches(client, configured(*second))[0])


def test_a_key_that_is_not_set_is_named(client, configured):
    settings = configured("env:NOT_SET_ANYWHERE")

    with pytest.raises(ConfigurationInvalid, match="NOT_SET_ANYWHERE"):
        claim(client, settings)
    assert not client.dbsize()


@contextmanager
def standing_before_it_claims(url, meanwhile):
    """Give a client that looks, and then stands still until others have done something."""
    with closing(InterruptedRedis.from_url(url, protocol=2)) as client:
        client.at, client.before = 2, meanwhile
        yield client


@pytest.mark.parametrize(("first", "second"), [((KEY,), ()), ((), (KEY,))])
def test_of_two_that_begin_at_once_the_first_write_decides(
    client, redis_url, configured, first, second
):
    settings = configured(*second)
    begin = partial(claim, client, configured(*first))
    with standing_before_it_claims(redis_url, begin) as standing, pytest.raises(RedisMismatch):
        claim(standing, settings)
    assert (client.get(keys.PROTECTION) is not None) is bool(first)


def test_two_with_the_key_that_begin_at_once_have_one_secret(client, redis_url, configured):
    settings = configured(KEY)

    def begin():
        claim(client, settings)
        PROTECTION.off()

    with standing_before_it_claims(redis_url, begin) as standing:
        claim(standing, settings)
    digest = keys.digest_of("email:ann@example.com")

    PROTECTION.off()
    compare(client, settings)
    assert keys.digest_of("email:ann@example.com") == digest


def test_a_redis_that_came_back_empty_gets_the_secret_of_its_processes(client, configured):
    settings = configured(KEY)
    claim(client, settings)
    watch = InstanceWatch(client, settings)
    watch.look()
    digest = keys.digest_of("email:ann@example.com")

    client.flushall()
    watch.look()

    PROTECTION.off()
    claim(client, settings)
    assert keys.digest_of("email:ann@example.com") == digest


def test_who_looks_at_a_new_redis_knows_the_secret_that_it_gets_and_writes_nothing_if_it_gets_none(
    client, configured
):
    """A console, or a tap, that began before the first worker."""
    compare(client, configured())
    assert client.dbsize() == 0

    settings = configured(KEY)
    compare(client, settings)
    digest = keys.digest_of("email:ann@example.com")
    assert PROTECTION
    assert not client.exists(keys.IDENTITY)

    PROTECTION.off()
    claim(client, settings)
    assert keys.digest_of("email:ann@example.com") == digest


def emptied_and_claimed(client, settings):
    """Let Redis come back empty, and another process be the first to claim it."""
    client.flushall()
    before = PROTECTION.record
    PROTECTION.off()
    claim(client, settings)
    assert client.get(keys.PROTECTION) != before


def entries(client):
    streams = [name for name in client.keys("*") if b"s:live" in name]
    return [fields for stream in streams for _, fields in client.xrange(stream)]


def test_who_stood_still_while_redis_was_emptied_adds_nothing_with_the_former_secret(
    client, configured
):
    settings = configured(KEY)
    publisher = Publisher(client, settings, waker=SilentWaker())
    publisher.publish([EVENT])
    former, record = PROTECTION.secret_id.hex(), PROTECTION.record
    secret = SealedSecret.loads(record).opened(settings.protection.revealed())

    emptied_and_claimed(client, settings)
    present = PROTECTION.secret_id.hex()
    PROTECTION.use(secret, record)
    with pytest.raises(SealedAnew, match="came back empty"):
        publisher.publish([EVENT])
    assert entries(client) == []

    publisher.publish([EVENT])  # it has claimed Redis anew, and knows its secret
    assert PROTECTION.secret_id.hex() == present != former
    assert len(entries(client)) == 1


REFUSED = b'{"data": {"email": "ann.planted@example.com", "segment_events": []}}'


@pytest.mark.parametrize("first", [(KEY,), ()])
@pytest.mark.parametrize("sent", [EVENT, REFUSED])
def test_who_stood_still_while_redis_was_emptied_is_refused_beside_the_other_kind(
    client, configured, first, sent
):
    """Records in the quarantine would stand open in a sealed Redis, or never open again."""
    own, other = configured(*first), configured(*(() if first else (KEY,)))
    publisher = Publisher(client, own, waker=SilentWaker())
    publisher.publish([EVENT])

    emptied_and_claimed(client, other)
    PROTECTION.off()
    if first:
        PROTECTION.use(bytes(32), b"a record")
    with pytest.raises(SealedAnew, match="came back empty"):
        publisher.publish([sent])
    with pytest.raises(RedisMismatch):
        publisher.publish([sent])
    assert entries(client) == []
    assert Quarantine(client).totals().records == 0


def test_digests_that_were_made_with_another_secret_are_not_added(client, configured):
    """Between drafting and writing, a thread beside has found that Redis has another secret."""
    settings = configured(KEY)
    publisher = Publisher(client, settings, waker=SilentWaker())
    publisher.publish([EVENT])
    PROTECTION.use(bytes(32), b"the secret of before")
    draft = publisher.draft([Payload(EVENT, orjson.loads(EVENT))], None, PublishOptions())

    claim(client, settings)
    with pytest.raises(SealedAnew, match="came back empty"):
        publisher.write_draft(draft, JobPosition())
    assert len(entries(client)) == 1


def test_a_destination_that_is_new_is_claimed_in_a_full_redis(client, configured):
    settings = configured(KEY)
    claim(client, settings)
    lease = PartitionKeys("insider", 0).lease
    client.hdel(lease, "sealed")
    with full(client):
        claim(client, settings)
    assert client.hget(lease, "sealed").decode() == PROTECTION.secret_id.hex()


def test_a_partition_that_is_sealed_with_another_secret_is_not_taken(redis_url, client, configured):
    settings = configured(KEY)
    publish(client, settings)
    partition = PartitionKeys("insider", 0)

    async def take():
        async with connect_async(redis_url) as own:
            return await RedisPartition(
                own,
                partition,
                lease_seconds=1,
                retention_seconds=9,
                late_seconds=1,
                owner="a:1",
                most_bytes=10_000,
            ).take()

    PROTECTION.use(bytes(32), b"another record")
    with pytest.raises(RedisMismatch, match="restart it"):
        asyncio.run(take())
    compare(client, settings)
    assert asyncio.run(take())

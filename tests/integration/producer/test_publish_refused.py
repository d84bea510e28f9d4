"""Publishing to a Redis that is used otherwise, is full, or is not there."""

import pytest

from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.errors import RedisMismatch, RedisUnavailable
from tests.integration.producer.redis_contents import counts, entries
from tests.integration.producer.test_publish import payload
from tests.waiting import until


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("{segrelay}:format", "3", "format 3"),
        ("{segrelay}:partitions", "8", "redis.partitions = 8"),
        ("{segrelay}:identity", "id", 'delivery.identity = "id"'),
    ],
)
def test_a_redis_that_is_in_use_otherwise_is_refused(publisher, client, key, value, hint):
    client.set(key, value)

    with pytest.raises(RedisMismatch, match=hint):
        publisher.publish([payload()])
    assert entries(client) == []


def test_a_full_redis_takes_nothing_and_says_so(publisher, client):
    until(lambda: client.info("memory")["lazyfree_pending_objects"] == 0)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
    try:
        assert publisher.why_full()
        with pytest.raises(RedisUnavailable, match=r"Redis is full.*stop at 80%"):
            publisher.publish([payload()])
    finally:
        client.config_set("maxmemory", 0)

    assert counts(client) == {}


def test_backfill_stops_at_its_high_water_mark_and_live_does_not(configure, publisher_of):
    publisher = publisher_of(configure(high_water=10))

    first = publisher.why_full("backfill")
    publisher.publish([payload(number) for number in range(12)], PublishOptions(job="load"))

    assert first == ""
    assert "high_water" in publisher.why_full("job.other")
    assert publisher.why_full("live") == ""


def test_without_redis_it_says_so(configure, waker):
    settings = configure(url="redis://127.0.0.1:1/0")

    with pytest.raises(RedisUnavailable, match="can't be reached"):
        Publisher(connect(settings.redis.url), settings, waker=waker).publish([payload()])

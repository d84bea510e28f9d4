"""`redis partitions` beside a new name, and replicas that lag."""

from contextlib import suppress

import orjson
import pytest

from segrelay.ops.moving.renumbering import Renumbering
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import NotReplicated, PartitionsChange
from tests.configuration import trigger
from tests.integration.ops.moving.stock import change, six
from tests.integration.ops.relay import ENTER, payload
from tests.interruptions import InterruptedRedis, dumped, restore

ELSEWHERE = trigger("vip-other", destination="other", audiences=["*"], template="enter.jsonnet")


def test_a_destination_that_is_named_while_the_number_changes_gets_nothing_in_former_partitions(
    relay, redis_url
):
    """A process with a newer configuration stands still between its start and its write."""
    relay.publish(payload("early@example.com"))
    older = load_settings(relay.settings.source, environ={})
    relay.configure(other=True, triggers=ENTER + ELSEWHERE)
    dumps = dumped(relay.client)
    stalled = InterruptedRedis.from_url(redis_url)

    def publish():
        settings = load_settings(relay.settings.source, environ={})
        publisher = Publisher(stalled, settings, waker=SilentWaker())
        for _ in range(3):
            with suppress(PartitionsChange):
                publisher.publish([orjson.dumps(payload("late@example.com"))], PublishOptions())
                return

    publish()
    trips = stalled.trips
    stalled.before = lambda: Renumbering(relay.client, older, 3).run()
    for number in range(1, trips + 1):
        restore(relay.client, dumps)
        stalled.trips, stalled.at = 0, number
        publish()

        partitions = [PartitionKeys("other", number) for number in range(4)]
        assert not [
            partition for partition in partitions if relay.client.exists(partition.streams)
        ], number
        assert number == trips or relay.status()["waiting"] == 3


def test_nothing_is_removed_before_replicas_have_what_was_copied(used):
    demanding = Redis.from_url(used.settings.redis.url)
    demanding.replicas = 1

    with pytest.raises(NotReplicated):
        change(demanding, used, 3)

    assert six(used.status()) == six(used.before)
    assert not [key for key in used.client.keys("{insider:[4-6]}*") if b"lease" not in key]
    change(used.client, used, 3)
    assert six(used.status()) == six(used.before)

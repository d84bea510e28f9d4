"""`redis partitions` beside a move that was broken off, a new name, and replicas that lag."""

from contextlib import suppress

import orjson
import pytest

from segrelay.ops.kept import Filter
from segrelay.ops.moving.renumbering import Renumbering
from segrelay.ops.waiting import Waiting
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.claim import claim, learn_numbering
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import NotReplicated, PartitionsChange
from tests.configuration import trigger
from tests.integration.ops.moving.dying_redis import (
    MOST_TRIPS,
    StalledRedis,
    deaths,
    restore,
    stalls,
)
from tests.integration.ops.moving.stock import change, drain, six
from tests.integration.ops.relay import ENTER, EXIT, payload
from tests.nightly import amount

PEOPLE = 12
EVERY_TRIP = amount(23, nightly=1)
TIMES = amount(3, nightly=60)
ELSEWHERE = trigger("vip-other", destination="other", audiences=["*"], template="enter.jsonnet")


MOVED = ENTER.replace("vip-enter", "moved").replace('"insider"', '"other"')


def moving_of(used):
    def move(client):
        settings = load_settings(used.settings.source, environ={})
        learn_numbering(client, settings)
        store = Waiting(client, settings, settings.triggers["moved"])
        list(store.replay(Filter(trigger="vip-enter")).steps())

    return move


def carry_on(used, counts):
    """Change the number of partitions, end the move, and drain both destinations."""
    client = used.client
    for name in ("insider", "other"):
        for number in range(4):
            client.delete(PartitionKeys(name, number).lease)
    for count in counts:
        change(client, used, count)
    moving_of(used)(client)
    drain(used, "other")


def nobody_is_wrong(used, number):
    found = used.status()
    assert (found["skipped_by_reason"], found["waiting"]) == ({"superseded": PEOPLE}, 0), number
    assert (found["delivered"], found["dead"]) == (PEOPLE + 1, 1), number
    assert found["accepted"] == used.before["accepted"], number


@pytest.fixture
def leaving(used):
    """What waits has to go to another destination, which knows nobody."""
    used.configure(EXIT, triggers=MOVED, other=True)
    claim(used.client, used.settings)
    return used


def test_a_broken_move_to_another_destination_does_not_keep_the_number_from_changing(
    leaving, redis_url
):
    for number, _ in deaths(leaving.client, redis_url, moving_of(leaving), every=EVERY_TRIP):
        carry_on(leaving, (3,))

        nobody_is_wrong(leaving, number)
        assert not leaving.client.keys("*carried*")


def test_a_move_that_is_killed_anywhere_is_ended_by_the_next(leaving, redis_url):
    for number, _ in deaths(leaving.client, redis_url, moving_of(leaving), every=EVERY_TRIP):
        carry_on(leaving, ())

        nobody_is_wrong(leaving, number)


def test_a_move_that_stands_still_while_the_number_changes_makes_nobody_wrong(leaving, redis_url):
    for number in stalls(
        leaving.client,
        redis_url,
        moving_of(leaving),
        lambda: carry_on(leaving, (3,)),
        first=2,
        times=TIMES,
    ):
        carry_on(leaving, ())

        nobody_is_wrong(leaving, number)


def test_a_destination_that_is_named_while_the_number_changes_gets_nothing_in_former_partitions(
    relay, redis_url
):
    """A process with a newer configuration stands still between its start and its write."""
    relay.publish(payload("early@example.com"))
    older = load_settings(relay.settings.source, environ={})
    relay.configure(other=True, triggers=ENTER + ELSEWHERE)
    dumps = {name: relay.client.dump(name) for name in relay.client.keys("*")}
    stalled = StalledRedis.from_url(redis_url)

    def publish():
        settings = load_settings(relay.settings.source, environ={})
        publisher = Publisher(stalled, settings, waker=SilentWaker())
        for _ in range(3):
            with suppress(PartitionsChange):
                publisher.publish([orjson.dumps(payload("late@example.com"))], PublishOptions())
                return

    stalled.meanwhile = lambda: None
    stalled.left = MOST_TRIPS
    publish()
    trips = MOST_TRIPS - stalled.left
    stalled.meanwhile = lambda: Renumbering(relay.client, older, 3).run()
    for number in range(1, trips + 1):
        restore(relay.client, dumps)
        stalled.left = number
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

"""`segrelay redis partitions N` that meets others at work, and whoever slept through it."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import orjson
import pytest

from segrelay.ops.moving.leases import HeldLease
from segrelay.ops.moving.renumbering import Renumbering
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.publishing.writing import JobPosition
from segrelay.producer.sync.store import SyncStore
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.adapters.redis.partition import RedisPartition
from segrelay.worker.batch.partition import IntendedDelivery, Intent
from segrelay.worker.batch.send import Stop
from segrelay.worker.contract import keys
from segrelay.worker.contract.events import decode_header
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.partitions import RENUMBERED_LEASE, Numbering
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect_async
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import NotReplicated, OperationsMustAct, PartitionsChange, UsageWrong
from segrelay.worker.node.runtime import runtime_for
from tests.configuration import trigger
from tests.integration.ops.moving.stock import change, drain, lapse, six
from tests.integration.ops.relay import ENTER, payload
from tests.interruptions import InterruptedRedis, dumped, restore

PEOPLE = 12


def test_who_still_knows_the_former_number_is_refused_and_goes_on(used):
    client, settings = used.client, used.settings
    publisher = Publisher(client, settings, waker=SilentWaker())
    publisher.publish([orjson.dumps(payload("early@example.com"))], PublishOptions())
    member = SyncStore(client, "vip", settings.redis)
    assert member.take()
    member.claim(["insider"])
    stale = load_settings(settings.source, environ={})
    Renumbering(client, stale, 3).run()
    assert settings.redis.numbering == Numbering((4,))

    with pytest.raises(PartitionsChange):
        member.claim(["insider"])
    with pytest.raises(PartitionsChange):
        publisher.publish([orjson.dumps(payload("late@example.com"))], PublishOptions())
    publisher.publish([orjson.dumps(payload("late@example.com"))], PublishOptions())

    drain(used)
    found = used.status()
    assert (found["waiting"], found["delivered"]) == (0, PEOPLE + 3)
    assert not [key for key in client.keys("{insider:[0-3]}*") if b"lease" not in key]


def test_a_block_of_a_job_that_was_drafted_before_is_refused_and_read_anew_once(relay):
    publisher = Publisher(relay.client, relay.settings, waker=SilentWaker())
    rows = [payload(f"p{n}@example.com") for n in range(40)]
    options = PublishOptions(job="load").resolved()
    texts = [orjson.dumps(row) for row in rows]
    draft = publisher._drafter.draft(texts, options)
    half = draft.deliveries.copy()
    draft.deliveries = dict(list(half.items())[:2])
    publisher.write_draft(draft, JobPosition("load", 1, "file"))
    draft.deliveries = half
    Renumbering(relay.client, load_settings(relay.settings.source, environ={}), 7).run()

    for _ in range(2):
        with pytest.raises(PartitionsChange):
            publisher.write_draft(draft, JobPosition("load", 1, "file"))
    again = publisher._drafter.draft(texts, options)
    published = publisher.write_draft(again, JobPosition("load", 1, "file"))

    assert 0 < published.repeated < 40
    assert relay.status()["accepted"] == 40


def test_a_drain_of_a_former_partition_is_nothing_and_of_an_unknown_one_an_error(used):
    runtime = runtime_for(used.settings)
    Renumbering(used.client, load_settings(used.settings.source, environ={}), 3).run()

    assert runtime.drain("insider", 2, Stop())[0].ended == "held by another worker"
    runtime.drain("insider", 5, Stop())
    tally, queue = runtime.drain("insider", 2, Stop())

    assert (tally.ended, queue) == ("the number of partitions has changed", "")
    with pytest.raises(UsageWrong, match="from 4 to 6"):
        runtime.drain("insider", 7, Stop())
    runtime.close()


def test_nothing_is_changed_while_a_worker_goes_on_draining(used):
    lease = HeldLease(used.client, PartitionKeys("insider", 1), "worker:7 x", length_ms=600_000)
    lease.hold()
    renumbering = Renumbering(used.client, used.settings, 3, patience_seconds=0.2)

    with pytest.raises(OperationsMustAct, match="worker:7 goes on working on partition 1"):
        renumbering.run()
    lease.let_go()

    with pytest.raises(OperationsMustAct, match="partitions 3"):
        change(used.client, used, 5)
    assert change(used.client, used, 3).deliveries == PEOPLE + 1


def test_a_repair_of_who_slept_through_it_waits_for_the_new_partitions(used):
    """A drain that lost its lease before publishes what was delivered meanwhile once more."""
    client = used.client
    partition = next(
        each for each in used.partitions() if client.xlen(each.stream("live|vip-enter"))
    )
    ((_, fields),) = client.xrange(partition.stream("live|vip-enter"), count=1)
    repair = NewDelivery("live", "vip-enter", decode_header(fields[b"h"]), fields[b"p"])
    HeldLease(client, partition, "redis-partitions", token=RENUMBERED_LEASE).hold()
    client.set(keys.PARTITIONS, "4>3")

    with ThreadPoolExecutor(2) as pool:
        ends = [
            pool.submit(asyncio.run, slept(used.settings, partition, step, repair))
            for step in (0, 1)
        ]
        time.sleep(1)
        assert not any(end.done() for end in ends)
        lapse(used)
        change(client, used, 3)
        for end in ends:
            end.result(20)

    new = PartitionKeys("insider", Numbering((4, 3)).of_digest(repair.header.digest))
    assert repair.header in [
        decode_header(each[b"h"]) for _, each in client.xrange(new.stream("live|vip-enter"))[-1:]
    ]
    assert client.hkeys(new.open) == [b"lost-repair"]
    assert not client.exists(partition.open)


async def slept(settings, partition, step, repair):
    client = connect_async(settings.redis.url)
    partition = RedisPartition(
        client,
        partition,
        lease_seconds=1.0,
        retention_seconds=1_000.0,
        late_seconds=1.0,
        owner="slept",
        most_bytes=10_000,
    )
    header = repair.header
    row = IntendedDelivery("live|vip-enter|1-1", header.digest, "vip", Direction.ENTER, 5, 0)
    try:
        if step:
            await partition.accept([repair])
        else:
            await partition.hold_back(Intent("lost", (row,)), 1_000.0)
    finally:
        await client.aclose()


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

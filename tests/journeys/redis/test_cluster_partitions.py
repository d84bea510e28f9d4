"""The number of partitions changes in a Cluster while a slot moves, and what does it is killed."""

from collections import Counter

import pytest

from segrelay.ops.demo.rig import DESTINATION, kill_group
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys, digest_of
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.redis.client import key_slot
from segrelay.worker.contract.redis.connection import servers_of
from tests.journeys.play import PARTITIONS, invent, lines, nothing_is_wrong, start_worker
from tests.journeys.redis import test_cluster
from tests.journeys.redis.test_cluster import lose_a_master
from tests.journeys.redis.test_partitions import change, numbering
from tests.journeys.redis.test_sentinel import beside, succeeds
from tests.nightly import amount

cluster, rig = test_cluster.cluster, test_cluster.rig
STRANGERS = amount(5_000, nightly=1_000_000)
"""Profiles of whom nothing comes: their records keep the command busy."""
AT_ONCE = 10_000
COUNTS = amount((5,), nightly=(5, 64))
LEDGER, LEASE = b"}l", b"}lease"
MOST_ATTEMPTS = 5
MOST_SECONDS = 900


def add_strangers(rig):
    present = numbering(rig)
    for first in range(0, STRANGERS, AT_ONCE):
        pipe = rig.client.pipeline(transaction=False)
        for n in range(first, min(STRANGERS, first + AT_ONCE)):
            key = f"email:stranger{n}@example.com"
            partition = PartitionKeys(DESTINATION, present.of(key))
            pipe.set(partition.ledger(digest_of(key)), b"?")
        pipe.execute()


def records(rig):
    """Return how often there is a record of each digest, and the partitions in which it stands."""
    found, partitions = Counter(), {}
    for _, server in servers_of(rig.client):
        for name in server.scan_iter(match=f"{{{DESTINATION}:*}}l*", count=AT_ONCE):
            tag, _, digest = name.partition(LEDGER)
            if len(digest) == DIGEST_BYTES and not name.endswith((LEASE, b"}dead_letter_times")):
                found[digest] += 1
                partitions[digest] = int(tag.rpartition(b":")[2])
    return found, partitions


def move_the_slot_of(cluster, partition):
    slot = key_slot(partition.streams.encode())
    before = cluster.owner(slot)
    cluster.move_slot(slot, next(port for port in cluster.masters() if port != before))


def ended(rig, count):
    """Give the command until it has done its work; a master that is away may break it off."""
    for _ in range(MOST_ATTEMPTS):
        done = rig.command("redis", "partitions", str(count), "--yes", timeout=MOST_SECONDS)
        assert b"Traceback" not in done.stderr
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr.decode())


@pytest.mark.nightly
def test_all_is_there_once_after_a_kill_a_lost_master_and_slots_that_moved(cluster, rig):
    happened, sent = invent(1_000, 400, seed=21)
    first, *rest = (sent[at :: len(COUNTS) + 1] for at in range(len(COUNTS) + 1))
    rig.stop_workers()
    succeeds(beside(rig, "send", "-", given=lines(first)))
    add_strangers(rig)

    for count, events in zip(COUNTS, rest, strict=True):
        former = PartitionKeys(DESTINATION, numbering(rig).first)
        killed = change(rig, count)
        move_the_slot_of(cluster, former)
        assert killed.poll() is None
        kill_group(killed)
        again = change(rig, count)
        lose_a_master(cluster, rig)
        again.wait(300)
        ended(rig, count)
        succeeds(beside(rig, "send", "-", given=lines(events), timeout=MOST_SECONDS))

    start_worker(rig)
    rig.wait_until_empty(60)
    nothing_is_wrong(rig, happened)
    present = numbering(rig)
    assert present == Numbering((PARTITIONS, *COUNTS))
    found, partitions = records(rig)
    assert set(found.values()) == {1}
    assert len(found) >= STRANGERS
    assert {digest_of(f"email:stranger{n}@example.com") for n in range(STRANGERS)} <= set(found)
    assert all(present.of_digest(digest) == at for digest, at in partitions.items())

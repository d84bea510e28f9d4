"""Reading many keys or fields to their end while slots move and masters die, in a real Cluster."""

import signal
import threading
from contextlib import closing
from itertools import chain, cycle, islice

import pytest

from segrelay.ops.audiences import count_all, held_by
from segrelay.ops.embedded import ensure_running, stop
from segrelay.ops.state.partitions import snapshots
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.batch.partition import LedgerText
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.redis.client import key_slot
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.scanning import scan_fields, scan_keys
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import LedgerEvent, with_delivered
from tests.configuration import insider, settings_in
from tests.integration.embedded.test_cluster import elsewhere
from tests.members import set_marks
from tests.waiting import allowed

PARTITION = PartitionKeys("insider", 0)
SLOT = key_slot(PARTITION.tag.encode())
MANY = 20_000
PEOPLE = 9_000
PARTITIONS = 3
RECORD = LedgerText.of(with_delivered(Record(), LedgerEvent(1_000, Direction.ENTER, 1, 1))).text


@pytest.fixture
def client(cluster):
    """A client that waits for no replicas."""
    cluster.await_replicas()
    # To move a slot with one large key takes a busy machine long, in which its node answers nobody.
    with closing(connect(cluster.url, timeout_seconds=allowed(5), away_seconds=30)) as found:
        cluster.empty()
        yield found


@pytest.fixture
def settings(cluster, tmp_path):
    more = {"broker_url": "redis://127.0.0.1:1/0", "partitions": PARTITIONS}
    return settings_in(tmp_path, insider(), redis=cluster.url, **more)


def put_ledgers(client, count, partitions=range(1)):
    """Write the ledgers of people who are in the audience `vip`, and return their keys."""
    client.hset(keys.NAMES, mapping={"a|vip": 1, "t|enter": 2})
    client.hset(keys.DESTINATIONS, "insider", "insider ")
    partitions = [PartitionKeys("insider", number) for number in partitions]
    pipe = client.pipeline(transaction=False)
    names = set()
    for number, partition in zip(range(count), cycle(partitions), strict=False):
        names.add(partition.ledger(digest_of(f"person{number}")))
    for name in names:
        pipe.set(name, RECORD)
    pipe.execute()
    return names


class MovingSlots(threading.Thread):
    """Moves the slots of partitions from node to node, one after the other, until it is told."""

    def __init__(self, cluster, partitions):
        super().__init__()
        self.cluster, self.is_over, self.moves = cluster, threading.Event(), 0
        self.slots = [key_slot(partition.tag.encode()) for partition in partitions]

    def run(self):
        for slot in cycle(self.slots):
            if self.is_over.is_set():
                return
            self.cluster.move_slot(slot, elsewhere(self.cluster, slot))
            self.moves += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.join()


def test_members_of_a_sync_are_read_whole_though_their_slot_is_moved_meanwhile(cluster, client):
    everybody = {f"person{number}@example.com" for number in range(MANY)}
    names = iter(sorted(everybody))
    while some := list(islice(names, 1_000)):
        set_marks(client, PARTITION, "vip", dict.fromkeys(some, b"mark"))
    reading = SyncStore(client, "vip", RedisSettings(partitions=16)).members(PARTITION)
    begun = {key for key, _ in islice(reading, 9_500)}

    cluster.move_slot(SLOT, elsewhere(cluster, SLOT))

    assert begun | {key for key, _ in reading} == everybody


@pytest.mark.nightly
def test_fields_are_read_whole_though_a_replica_takes_over_meanwhile(cluster, client):
    everything = {f"field{number}".encode() for number in range(MANY)}
    pipe = client.pipeline(transaction=False)
    pipe.hset(PARTITION.who, mapping=dict.fromkeys(everything, b"text"))
    pipe.execute_command("WAITAOF", 0, 1, 5_000)
    pipe.execute()
    reading = chain.from_iterable(scan_fields(client, PARTITION.who))
    begun = {name for name, _ in islice(reading, 9_500)}

    port = cluster.owner(SLOT)
    cluster.kill_node(port)
    found = begun | {name for name, _ in reading}
    cluster.start_node(port)

    assert found == everything


@pytest.mark.nightly
def test_counts_are_read_though_their_master_hangs(cluster, client):
    partitions = [PartitionKeys("insider", number) for number in range(16)]
    pipe = client.pipeline(transaction=False)
    for partition in partitions:
        pipe.hset(partition.counts, "accepted|enter", 1)
    pipe.execute_command("WAITAOF", 0, 1, 5_000)
    pipe.execute()
    snapshots(client, partitions)

    port = cluster.owner(SLOT)
    cluster.nodes[port].send_signal(signal.SIGSTOP)
    found = snapshots(client, partitions)
    cluster.nodes[port].send_signal(signal.SIGCONT)

    assert [list(one.counts) for one in found] == [[b"accepted|enter", b"1"]] * 16


@pytest.mark.parametrize("target_was_read", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_keys_are_read_whole_though_their_slot_moves_to_another_node(
    cluster, client, target_was_read
):
    names = put_ledgers(client, MANY)
    others = [port for port in cluster.masters() if port != cluster.owner(SLOT)]
    reading = chain.from_iterable(scan_keys(client, [PARTITION], "l*", "string"))
    begun = set(islice(reading, 9_500))

    cluster.move_slot(SLOT, others[0] if target_was_read else others[-1])

    assert begun | set(reading) == names


def test_a_slot_that_is_half_moved_is_waited_for(cluster, client):
    names = put_ledgers(client, 3_000)
    found = set()

    with cluster.moving(SLOT, elsewhere(cluster, SLOT)) as move_some:
        move_some(1_000)
        reader = threading.Thread(
            target=lambda: found.update(chain.from_iterable(scan_keys(client, [PARTITION], "l*")))
        )
        reader.start()
        reader.join(0.5)
        waited = reader.is_alive() and not found
        while move_some(1_000):
            pass
    reader.join()

    assert waited
    assert found == names


@pytest.mark.nightly
def test_nobody_is_counted_twice_or_missed_while_slots_move(cluster, client, settings):
    put_ledgers(client, PEOPLE, range(PARTITIONS))
    partitions = [PartitionKeys("insider", number) for number in range(PARTITIONS)]

    with MovingSlots(cluster, partitions) as moving:
        counts = [count_all(client, settings) for _ in range(3)]
        while moving.moves <= 3 and len(counts) < 100:
            counts.append(count_all(client, settings))
        inside = held_by(client, settings, "vip")["insider"]

    assert moving.moves > 3
    expected = {("vip", "insider", "enter"): PEOPLE}
    assert counts == [expected] * len(counts)
    assert len(inside) == PEOPLE


def test_fields_of_a_single_redis_are_read_whole_though_it_is_started_again(tmp_path):
    everything = {f"field{number}".encode() for number in range(MANY)}
    try:
        with closing(connect(ensure_running(tmp_path).url)) as one:
            one.hset(PARTITION.who, mapping=dict.fromkeys(everything, b"text"))
            reading = chain.from_iterable(scan_fields(one, PARTITION.who))
            begun = {name for name, _ in islice(reading, 9_500)}

            stop(tmp_path)
            ensure_running(tmp_path)
            one.connection_pool.disconnect()

            assert begun | {name for name, _ in reading} == everything
    finally:
        stop(tmp_path)

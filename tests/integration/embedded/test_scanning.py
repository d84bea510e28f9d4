"""Reading many keys or fields to their end while slots move and masters die, in a real Cluster."""

import threading
from contextlib import closing
from itertools import chain, islice

import pytest

from segrelay.ops.embedded import ensure_running, stop
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.redis.client import key_slot
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.scanning import scan_fields, scan_keys
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.errors import RedisUnavailable
from tests.integration.embedded.test_cluster import elsewhere
from tests.members import set_marks
from tests.waiting import allowed

PARTITION = PartitionKeys("insider", 0)
SLOT = key_slot(PARTITION.tag.encode())
MANY = 20_000


@pytest.fixture
def client(cluster):
    """A client that waits for no replicas."""
    cluster.await_replicas()
    # To move a slot with one large key takes a busy machine long, in which its node answers nobody.
    seconds = allowed(5)
    with closing(connect(cluster.url, timeout_seconds=seconds, away_seconds=30 + seconds)) as found:
        cluster.empty()
        yield found


def put_ledgers(client, count):
    """Write keys as those of ledgers are named, and return them."""
    names = {PARTITION.ledger(digest_of(f"person{number}")) for number in range(count)}
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.set(name, "")
    pipe.execute()
    return names


def test_a_reading_ends_with_an_error_if_its_slot_is_moved_meanwhile(cluster, client):
    everybody = {f"person{number}@example.com" for number in range(MANY)}
    names = iter(sorted(everybody))
    while some := list(islice(names, 1_000)):
        set_marks(client, PARTITION, "vip", dict.fromkeys(some, b"mark"))
    store = SyncStore(client, "vip", RedisSettings(partitions=16))
    reading = store.members(PARTITION)
    next(reading)

    cluster.move_slot(SLOT, elsewhere(cluster, SLOT))

    with pytest.raises(RedisUnavailable, match="do it again"):
        list(reading)
    assert {key for key, _ in store.members(PARTITION)} == everybody


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


def test_a_reading_ends_with_an_error_if_a_single_redis_is_started_again(tmp_path):
    everything = {f"field{number}".encode() for number in range(MANY)}
    try:
        with closing(connect(ensure_running(tmp_path).url)) as one:
            one.hset(PARTITION.who, mapping=dict.fromkeys(everything, b"text"))
            reading = scan_fields(one, PARTITION.who)
            next(reading)

            stop(tmp_path)
            ensure_running(tmp_path)
            one.connection_pool.disconnect()

            with pytest.raises(RedisUnavailable, match="do it again"):
                list(reading)
            again = chain.from_iterable(scan_fields(one, PARTITION.who))
            assert {name for name, _ in again} == everything
    finally:
        stop(tmp_path)

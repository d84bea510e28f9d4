"""A Redis Cluster: a master dies and a slot moves to another node while everything runs."""

import time
from contextlib import suppress

import pytest

from segrelay.ops.state.opened import compared
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.client import key_slot
from segrelay.worker.contract.redis.connection import wait_ready
from segrelay.worker.contract.redis.url import patience_seconds
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import RedisUnavailable
from tests.configuration import configuration
from tests.journeys.intake.test_backfill_journey import AS_OF, rows_as_happenings, write_rows
from tests.journeys.play import SHORT, Rig, invent, lines, nothing_is_wrong, start_worker
from tests.journeys.redis.test_sentinel import SLOW, beside, succeeds
from tests.nightly import amount
from tests.topologies import LocalCluster
from tests.waiting import until

ROWS = amount(800, nightly=3_000)
NODE_MS = 2_000


@pytest.fixture
def cluster(tmp_path):
    with LocalCluster(tmp_path / "cluster", node_ms=NODE_MS) as started:
        yield started


@pytest.fixture
def rig(cluster, redis_url, tmp_path):
    with Rig(
        tmp_path,
        redis_url=cluster.url,
        redis_lines=f'high_water = 2000\nreplicas = 1\nbroker_url = "{redis_url}"',
        delivery_lines=SHORT,
        sandbox_settings=SLOW,
    ) as started:
        start_worker(started)
        yield started


def waits(rig):
    """Return how many deliveries wait; none while that can't be asked."""
    with suppress(RedisUnavailable, OSError):
        return rig.waiting()
    return 0


def busiest_slot(rig):
    """Return the slot of the partition where the most deliveries wait."""
    partitions = rig.partitions()
    waiting = {
        partition: sum(rig.client.xlen(partition.stream(name.decode())) for name in
                   rig.client.smembers(partition.streams))
        for partition in partitions
    }  # fmt: skip
    return key_slot(max(partitions, key=waiting.__getitem__).streams.encode())


def lose_a_master(cluster, rig):
    slot = busiest_slot(rig)
    port = cluster.owner(slot)
    cluster.kill_node(port)
    cluster.await_other_owner(slot, port)
    cluster.start_node(port)
    cluster.await_replicas()


def move_a_slot(cluster, rig):
    slot = busiest_slot(rig)
    before = cluster.owner(slot)
    cluster.move_slot(slot, next(port for port in cluster.masters() if port != before))


def test_nothing_is_lost_or_wrong_while_a_master_dies_and_a_slot_moves(cluster, rig, tmp_path):
    happened, sent = invent(amount(900, nightly=3_000), amount(300, nightly=1_000), seed=20)
    emails = [f"row{number}@example.com" for number in range(ROWS)]
    rows = write_rows(tmp_path / "rows.ndjson", emails)
    job = ("backfill", "start", rows, "--audience", "vip", "--as-of", AS_OF.isoformat())
    reading = beside(rig.command, *job, "--job", "load")

    until(lambda: waits(rig) > 300)
    sending = beside(rig.command, "send", "-", given=lines(sent[::2]))
    lose_a_master(cluster, rig)
    succeeds(sending)
    sending = beside(rig.command, "send", "-", given=lines(sent[1::2]))
    until(lambda: waits(rig) > 300)
    move_a_slot(cluster, rig)
    succeeds(sending)
    rig.sandbox.settings(latency_seconds=0.02)
    succeeds(reading)

    rig.wait_until_empty(60)
    nothing_is_wrong(rig, happened + rows_as_happenings(emails, "vip"))
    assert rig.workers[0].poll() is None


@pytest.mark.nightly
def test_a_command_whose_master_is_lost_while_it_begins_waits_for_the_next(
    cluster, redis_url, tmp_path
):
    (tmp_path / "templates").mkdir()
    path = tmp_path / "segrelay.toml"
    path.write_text(configuration(redis=cluster.url, broker_url=redis_url))
    settings = load_settings(path, environ={})
    wait_ready(cluster.url)
    cluster.kill_node(cluster.owner(key_slot(keys.FORMAT.encode())))

    begun = time.monotonic()
    with compared(settings, cluster.url, patience_seconds(cluster.url), patient=False) as client:
        assert client.get(keys.FORMAT) is None
    assert time.monotonic() - begun > NODE_MS / 1_000

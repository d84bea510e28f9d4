"""Our clients on a real Cluster: each command reaches its node, whatever moves or dies."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from segrelay.ops.person import rewrite_files
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.claim import InstanceWatch, read_losses
from segrelay.worker.contract.redis.client import key_slot
from segrelay.worker.contract.redis.connection import (
    ask_how_it_is,
    connect,
    connect_async,
    used_and_most_bytes,
    wait_ready,
)
from segrelay.worker.contract.redis.scripts import (
    ScriptCall,
    digest,
    run_each,
    run_script,
    run_script_async,
)
from segrelay.worker.errors import RedisMismatch, RedisUnavailable
from tests.configuration import insider, settings_in
from tests.topologies import LocalCluster
from tests.waiting import allowed

COUNT_UP = "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])"
KEYS = [f"{{insider:{number}}}counter" for number in range(16)]
SLOT = key_slot(KEYS[0].encode())


@pytest.fixture
def client(cluster: LocalCluster):
    cluster.await_replicas()
    with closing(connect(cluster.url, away_seconds=30, replicas=1)) as found:
        cluster.empty()
        yield found


def elsewhere(cluster: LocalCluster, slot: int = SLOT) -> int:
    """Return a master that does not have a slot."""
    return next(port for port in cluster.masters() if port != cluster.owner(slot))


def master_at(client, port):
    return next(one for address, one in client.masters() if address.endswith(f":{port}"))


def test_scripts_and_commands_reach_the_masters_of_their_keys(client):
    calls = [ScriptCall((key,), (2,)) for key in KEYS]

    assert run_each(client, COUNT_UP, calls, synced_once=True) == [2] * 16
    assert run_each(client, COUNT_UP, calls, replicated=True) == [4] * 16
    assert run_script(client, COUNT_UP, (KEYS[3],), (1,)) == 5
    sizes = [one.dbsize() for _, one in client.masters()]
    assert (len(sizes), sum(sizes), min(sizes) > 0) == (3, 16, True)


def test_an_asynchronous_client_does_the_same(cluster, client):
    async def doing():
        async with connect_async(cluster.url, replicas=1) as other:
            await run_script_async(other, COUNT_UP, (KEYS[0],), (7,), replicated=True)
            async with other.pipeline(transaction=False) as pipe:
                for key in KEYS:
                    pipe.execute_command("EVALSHA", digest(COUNT_UP), 1, key, 1)
                    pipe.get(key)
                return await pipe.execute(raise_on_error=False)

    run_each(client, COUNT_UP, [ScriptCall((key,), (1,)) for key in KEYS])
    answers = asyncio.run(doing())

    assert answers == [9, b"9", *([2, b"2"] * 15)]


def test_all_masters_are_judged(cluster):
    with closing(connect(cluster.url)) as client:
        [(address, one), *_] = client.masters()
        one.config_set("appendfsync", "everysec")
        try:
            warnings = wait_ready(cluster.url, replicas=1)
        finally:
            one.config_set("appendfsync", "always")

        assert len(ask_how_it_is(client)) == 3
    assert [warning for warning in warnings if "appendfsync is everysec" in warning] == [
        warning for warning in warnings if address in warning
    ]
    assert wait_ready(cluster.url, replicas=1) == ()


def test_the_fullest_master_is_told_and_the_files_of_all_are_rewritten(client):
    used = [one.info("memory")["used_memory"] for _, one in client.masters()]

    assert used_and_most_bytes(client)[0] > 0.9 * min(used)
    assert rewrite_files(client)


def test_a_cluster_is_no_single_redis(cluster):
    port = cluster.masters()[0]

    with pytest.raises(RedisMismatch, match=r"write redis\+cluster://"):
        wait_ready(f"redis://:{cluster.password}@127.0.0.1:{port}")


def test_each_call_is_made_once_after_its_slot_was_moved_key_by_key(cluster, client):
    keys = [f"{{insider:0}}{number}" for number in range(40)]
    calls = [ScriptCall((key,), (1,)) for key in keys]
    run_each(client, COUNT_UP, calls)
    target = elsewhere(cluster)

    with ThreadPoolExecutor(1) as beside, cluster.moving(SLOT, target) as move_some:
        move_some(20)
        counting = beside.submit(run_each, client, COUNT_UP, calls, replicated=True)
        with pytest.raises(TimeoutError):
            counting.result(0.3)
        while move_some(100):
            pass
    assert counting.result() == [2] * 40

    assert cluster.owner(SLOT) == target


def test_what_asks_for_a_slot_that_is_moved_for_long_is_told_so(cluster, client):
    client.set(KEYS[0], 1)

    with cluster.moving(SLOT, elsewhere(cluster)) as move_some:
        with (
            closing(connect(cluster.url, timeout_seconds=3)) as impatient,
            pytest.raises(RedisUnavailable, match="it moves, or its master is down"),
        ):
            impatient.get("{insider:0}another")
        move_some(100)


@pytest.mark.parametrize("ends", ["killed", pytest.param("hangs", marks=pytest.mark.nightly)])
def test_a_lost_master_is_replaced_and_nothing_that_was_confirmed_is_lost(cluster, client, ends):
    calls = [ScriptCall((key,), (1,)) for key in KEYS]
    run_each(client, COUNT_UP, calls, replicated=True)
    port = cluster.owner(SLOT)
    process = cluster.nodes[port]
    other = next(key for key in KEYS if owner(cluster, key) != port)
    replicas = [cluster.nodes[one] for one in cluster.nodes.keys() - {*cluster.masters()}]

    for one in replicas:
        one.send_signal(19)  # or a machine that is busy sees only that it was replaced
    if ends == "killed":
        cluster.kill_node(port)
    else:
        process.send_signal(19)
    try:
        with closing(connect(cluster.url, timeout_seconds=3)) as impatient:
            with pytest.raises(RedisUnavailable):
                impatient.get(KEYS[0])
            assert impatient.get(other) == b"1"
        for one in replicas:
            one.send_signal(18)
        begun = time.monotonic()
        assert [client.get(key) for key in KEYS] == [b"1"] * 16
        assert time.monotonic() - begun < allowed(10)
        # The new master answers before most of the others have heard of it.
        assert cluster.await_other_owner(SLOT, port) != port
    finally:
        if ends == "killed":
            cluster.start_node(port)
        else:
            process.send_signal(18)
    cluster.await_replicas()
    assert run_each(client, COUNT_UP, calls, replicated=True) == [2] * 16


def owner(cluster: LocalCluster, key: str) -> int:
    return cluster.owner(key_slot(key.encode()))


def test_what_may_have_been_carried_out_is_not_sent_again(cluster, client):
    client.set(KEYS[0], 0)
    one = master_at(client, cluster.owner(SLOT))
    one.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")

    with (
        closing(connect(cluster.url, timeout_seconds=0.5, away_seconds=10)) as other,
        pytest.raises(RedisUnavailable, match="did not answer in time"),
    ):
        run_script(other, COUNT_UP, (KEYS[0],), (1,))

    one.execute_command("CLIENT", "UNPAUSE")
    assert int(client.get(KEYS[0])) <= 1


def test_a_master_that_lost_all_that_it_held_is_noticed_with_its_address(cluster, client, tmp_path):
    settings = settings_of(cluster, tmp_path)
    watch = InstanceWatch(client, settings)
    watch.look()
    port = elsewhere(cluster, key_slot(keys.INSTANCE_ID.encode()))
    emptied = master_at(client, port)

    emptied.flushall()
    watch.look()
    watch.look()

    [loss] = read_losses(client)
    assert loss.node == f"127.0.0.1:{port}"
    assert loss.last_seen_ms <= loss.noticed_ms


def settings_of(cluster, folder):
    return settings_in(folder, insider(), redis=cluster.url, broker_url="redis://127.0.0.1:1/0")


def test_a_move_and_a_failover_are_no_loss(cluster, client, tmp_path):
    watch = InstanceWatch(client, settings_of(cluster, tmp_path))
    watch.look()
    for slot in {key_slot(key.encode()) for key in watch.known}:
        cluster.move_slot(slot, elsewhere(cluster, slot))
    watch.look()
    port = cluster.owner(SLOT)

    cluster.kill_node(port)
    watch.look()
    cluster.await_other_owner(SLOT, port)
    cluster.start_node(port)
    watch.look()
    cluster.await_replicas()

    assert read_losses(client) == []
    assert len({cluster.owner(key_slot(key.encode())) for key in watch.known}) == 3

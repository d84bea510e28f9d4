"""Writes that wait for replicas, on a real master with a real replica."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager, closing
from urllib.parse import quote

import pytest

from segrelay.producer.publishing.published import JobPosition, lay_out, write
from segrelay.worker.contract.events import Header
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.redis.connection import (
    connect,
    connect_async,
    wait_ready,
)
from segrelay.worker.contract.redis.scripts import run_script_async
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import NotReplicated, RedisUnavailable
from tests.topologies import PASSWORD, Sentinels
from tests.waiting import until

KEYS = PartitionKeys("insider", 0)
WRITES = "return redis.call('SET', KEYS[1], ARGV[1])"


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("redis")
    with Sentinels(folder, lines="", down_ms=600_000) as started:  # nothing is to fail over here
        yield started


@pytest.fixture
def hanging_replica(servers):
    """Let a replica stand still for the length of a test."""
    port = next(port for port in servers.servers if port != servers.master())
    process = servers.servers[port]
    os.kill(process.pid, signal.SIGSTOP)
    yield port
    os.kill(process.pid, signal.SIGCONT)
    wait_until_both_follow(servers)


def wait_until_both_follow(servers):
    """Wait until the master has both replicas again: one that stood still may have been dropped."""
    with closing(connect(servers.url)) as client:
        until(lambda: client.info("replication")["connected_slaves"] == 2, 60)


def url_of(port):
    return f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/0"


def delivery():
    header = Header(b"0" * 10, "vip", Direction.ENTER, 1, False, False, False, 1)
    return NewDelivery("live", "enter", header, b"{}")


def calls():
    deliveries = {("insider", 0): [delivery()]}
    return lay_out(deliveries, JobPosition(), secret_id=b"")


def test_what_was_accepted_is_on_the_disks_of_all_replicas(servers):
    with closing(connect(servers.url, replicas=2)) as client:
        assert write(client, calls(), JobPosition()).accepted == 1

        for port in servers.servers:
            with closing(connect(url_of(port))) as one:
                assert one.xlen(KEYS.stream("live|enter")) == client.xlen(KEYS.stream("live|enter"))


@pytest.mark.usefixtures("hanging_replica")
def test_what_too_few_replicas_have_confirmed_is_not_accepted(servers):
    with (
        closing(connect(servers.url, replicas=2)) as client,
        pytest.raises(NotReplicated, match="1 of 2 replicas"),
    ):
        write(client, calls(), JobPosition())
    with closing(connect(servers.url, replicas=1)) as client:
        assert write(client, calls(), JobPosition()).accepted == 1


@pytest.mark.usefixtures("hanging_replica")
def test_a_script_of_a_worker_waits_too(servers):
    async def run(replicas):
        async with connect_async(servers.url, replicas=replicas) as client:
            return await run_script_async(client, WRITES, ["a"], ["1"], replicated=True)

    assert asyncio.run(run(1)) == b"OK"
    with pytest.raises(NotReplicated):
        asyncio.run(run(2))


def test_missing_replicas_are_told(servers):
    wait_until_both_follow(servers)
    told = wait_ready(servers.url, replicas=3)

    assert any("2 of the 3 replicas that redis.replicas demands" in one for one in told)


READS = "return redis.call('GET', KEYS[1])"


@asynccontextmanager
async def sentinel_behind_the_times(servers, wrong):
    """Yield the URL of a Sentinel that names a replica as the master to whoever asks first."""
    named = [b"%d" % wrong]

    async def relay(reader, writer, master=None):
        while data := await reader.read(65_536):
            if master and master in data and named:
                data = data.replace(master, named.pop())
            writer.write(data)
        writer.close()

    async def serve(reader, writer):
        there, to_there = await asyncio.open_connection("127.0.0.1", next(iter(servers.guards)))
        master = b"%d" % servers.master()
        await asyncio.gather(relay(reader, to_there), relay(there, writer, master))

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        before, _, after = servers.url.partition("@")
        yield f"{before}@127.0.0.1:{port}/{after.partition('/')[2]}"


def test_a_server_that_a_sentinel_wrongly_named_is_left(servers):
    wait_until_both_follow(servers)
    with closing(connect(servers.url, replicas=2)) as client:
        client.set("a", "1")
    replica = next(port for port in servers.servers if port != servers.master())

    async def run():
        async with sentinel_behind_the_times(servers, replica) as url:
            client = connect_async(url, replicas=1)
            try:
                with pytest.raises(RedisUnavailable, match="no longer the master"):
                    await run_script_async(client, READS, ["a"], [], replicated=True)
                return await run_script_async(client, READS, ["a"], [], replicated=True)
            finally:
                await client.aclose()

    assert asyncio.run(run()) == b"1"

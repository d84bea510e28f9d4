"""Nodes of a Cluster are reached where they announce it: nowhere, or behind TLS."""

import asyncio
from contextlib import ExitStack, closing
from urllib.parse import urlencode

import pytest

from segrelay.worker.contract.redis.connection import (
    connect,
    connect_async,
    wait_ready,
)
from segrelay.worker.contract.redis.scripts import ScriptCall, run_each
from segrelay.worker.errors import RedisUnavailable
from tests.integration.embedded.test_cluster import COUNT_UP, KEYS
from tests.tls import Certificates, TlsRelay
from tests.topologies import LocalCluster
from tests.waiting import until

NOWHERE = "192.0.2.1"
"""Reserved for documents: no machine has it."""


@pytest.fixture
def cluster(tmp_path):
    with LocalCluster(tmp_path / "cluster", node_ms=2_000, replicas=False) as started:
        yield started


def announce(cluster, option, values):
    """Let each node tell clients another host or port, and wait until all nodes tell them."""
    for port, value in zip(cluster.nodes, values, strict=True):
        with node_at(cluster, port) as node:
            node.config_set(f"cluster-announce-{option}", value)
    for port in cluster.nodes:
        until(lambda port=port: told(cluster, port, option) == set(values), 10)


def node_at(cluster, port):
    return closing(connect(f"redis://:{cluster.password}@127.0.0.1:{port}"))


def told(cluster, port, option):
    """Return the hosts or ports at which a node says that all are reached."""
    with node_at(cluster, port) as node:
        slots = node.execute_command("CLUSTER", "SLOTS")
    servers = [server for _, _, *servers in slots for server in servers]
    return {server[1] if option == "port" else server[0].decode() for server in servers}


def test_all_nodes_are_spoken_to_by_tls(cluster, tmp_path):
    certificates = Certificates(tmp_path / "certificates")
    mine = certificates.signed("server")
    certificate, key = certificates.signed("client")
    with ExitStack() as stack:
        relays = {
            port: stack.enter_context(TlsRelay(port, mine, certificates.authority))
            for port in cluster.nodes
        }
        ports = [relay.listens_at for relay in relays.values()]
        announce(cluster, "port", ports)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        files = {"ssl_certfile": certificate, "ssl_keyfile": key}
        files |= {"ssl_ca_certs": certificates.authority}
        url = f"rediss+cluster://:{cluster.password}@{hosts}?{urlencode(files)}"

        wait_ready(url)
        with closing(connect(url)) as client:
            calls = [ScriptCall((key,), (1,)) for key in KEYS]
            assert run_each(client, COUNT_UP, calls) == [1] * 16
        assert asyncio.run(read_by(url)) == [b"1"] * 16

        assert all(relay.taken for relay in relays.values())


async def read_by(url):
    """Return what an asynchronous client reads, with a connection to each node."""
    async with connect_async(url) as client, client.pipeline(transaction=False) as pipe:
        for key in KEYS:
            pipe.get(key)
        return await pipe.execute()


def test_nodes_that_announce_where_nobody_is_are_not_reached(cluster):
    announce(cluster, "client-ipv4", [NOWHERE] * len(cluster.nodes))
    hosts = ",".join(f"127.0.0.1:{port}" for port in cluster.nodes)
    url = f"redis+cluster://:{cluster.password}@{hosts}"

    with (
        closing(connect(url, timeout_seconds=0.5)) as client,
        pytest.raises(RedisUnavailable, match=r"did not answer|can't be reached"),
    ):
        client.get(KEYS[0])

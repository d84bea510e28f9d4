"""Nodes of a Cluster that tell an address at which nobody reaches them, and nodes behind TLS."""

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
from tests.integration.embedded.test_cluster import COUNT_UP, KEYS, SLOT, elsewhere
from tests.tls import Certificates, TlsRelay
from tests.topologies import LocalCluster
from tests.waiting import until

NOWHERE = "192.0.2.1"
"""Reserved for documents: no machine has it."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Cluster whose nodes tell clients an address that nobody has."""
    with LocalCluster(tmp_path_factory.mktemp("cluster"), node_ms=2_000) as started:
        for port in started.nodes:
            with node_at(started, port) as node:
                node.config_set("cluster-announce-client-ipv4", NOWHERE)
        for port in started.nodes:
            until(lambda port=port: told_hosts(started, port) == {NOWHERE}, 10)
        yield started


def node_at(cluster, port):
    return closing(connect(f"redis://:{cluster.password}@127.0.0.1:{port}"))


def told_hosts(cluster, port):
    with node_at(cluster, port) as node:
        told = node.execute_command("CLUSTER", "SLOTS")
    return {server[0].decode() for _, _, *servers in told for server in servers}


def url_of(cluster, ports, scheme="redis", **options):
    """Return a URL in which nodes are reached at ports of this machine."""
    nat = ",".join(f"{NOWHERE}:{node}=127.0.0.1:{ours}" for node, ours in ports.items())
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports.values())
    return f"{scheme}+cluster://:{cluster.password}@{hosts}?{urlencode(options | {'nat': nat})}"


def counted_up(client):
    return run_each(client, COUNT_UP, [ScriptCall((key,), (1,)) for key in KEYS])


async def read_by(url):
    """Return what an asynchronous client reads, with a connection to each node."""
    async with connect_async(url) as client, client.pipeline(transaction=False) as pipe:
        for key in KEYS:
            pipe.get(key)
        return await pipe.execute()


def test_nodes_are_reached_by_the_map_also_where_they_refer_to_another(cluster):
    url = url_of(cluster, {port: port for port in cluster.nodes})
    with closing(connect(url, away_seconds=30)) as client:
        cluster.empty()
        assert counted_up(client) == [1] * 16

        cluster.move_slot(SLOT, elsewhere(cluster))

        assert counted_up(client) == [2] * 16
        assert asyncio.run(read_by(url)) == [b"2"] * 16


def test_without_the_map_the_nodes_are_not_reached(cluster):
    hosts = ",".join(f"127.0.0.1:{port}" for port in cluster.nodes)
    url = f"redis+cluster://:{cluster.password}@{hosts}"

    with (
        closing(connect(url, timeout_seconds=0.5)) as client,
        pytest.raises(RedisUnavailable, match=r"did not answer|can't be reached"),
    ):
        client.get(KEYS[0])


@pytest.fixture
def relays(cluster, tmp_path):
    """Certificates, and a port behind TLS for each node."""
    certificates = Certificates(tmp_path / "certificates")
    mine = certificates.signed("server", "IP:127.0.0.1")
    with ExitStack() as stack:
        started = {
            port: stack.enter_context(TlsRelay(port, mine, certificates.authority))
            for port in cluster.nodes
        }
        yield certificates, started


def test_all_nodes_are_spoken_to_by_tls(cluster, relays):
    certificates, started = relays
    certificate, key = certificates.signed("client", "DNS:client.example.com")
    ports = {port: relay.listens_at for port, relay in started.items()}
    files = {"ssl_certfile": certificate, "ssl_keyfile": key}
    url = url_of(cluster, ports, "rediss", ssl_ca_certs=certificates.authority, **files)

    assert wait_ready(url, replicas=1) == ()
    with closing(connect(url)) as client:
        cluster.empty()
        assert counted_up(client) == [1] * 16
    assert asyncio.run(read_by(url)) == [b"1"] * 16

    assert all(started[port].taken for port in cluster.masters())

"""Nodes of a Cluster are reached where they announce it: behind TLS, or nowhere."""

import asyncio
from contextlib import ExitStack, closing

import pytest

from segrelay.worker.contract.redis.connection import (
    connect,
    connect_async,
    wait_ready,
)
from segrelay.worker.contract.redis.scripts import ScriptCall, run_each
from segrelay.worker.errors import RedisUnavailable
from tests.integration.embedded.test_cluster import COUNT_UP, KEYS
from tests.journeys.redis.test_tls import address, administrators, announce
from tests.tls import Certificates, TlsRelay
from tests.waiting import until

NOWHERE = b"192.0.2.1"
"""Reserved for documents: no machine has it."""


async def read_by(url):
    """Return what an asynchronous client reads, with a connection to each node."""
    async with connect_async(url) as client, client.pipeline(transaction=False) as pipe:
        for key in KEYS:
            pipe.get(key)
        return await pipe.execute()


def test_nodes_are_spoken_to_by_tls_where_they_announce_it_and_nowhere_else(tmp_path):
    certificates = Certificates(tmp_path / "certificates")
    mine = certificates.signed("server")
    with ExitStack() as stack:
        admins = administrators(stack, tmp_path, "cluster")
        relays = [
            stack.enter_context(TlsRelay(port, mine, certificates.authority)) for port in admins
        ]
        announce(admins.values(), relays)
        url = address(relays, certificates.authority, certificates.signed("client"), "cluster")

        wait_ready(url)
        with closing(connect(url)) as client:
            calls = [ScriptCall((key,), (1,)) for key in KEYS]
            assert run_each(client, COUNT_UP, calls) == [1] * 16
        assert asyncio.run(read_by(url)) == [b"1"] * 16
        assert all(relay.taken for relay in relays)

        for admin in admins.values():
            admin.config_set("cluster-announce-client-ipv4", NOWHERE)
        until(lambda: all(hosts_of(admin) == {NOWHERE} for admin in admins.values()))
        with (
            closing(connect(url, timeout_seconds=0.5)) as client,
            pytest.raises(RedisUnavailable, match=r"did not answer|can't be reached"),
        ):
            client.get(KEYS[0])


def hosts_of(admin):
    """Return the hosts at which a node says that all are reached."""
    return {node[0] for _, _, node, *_ in admin.execute_command("CLUSTER SLOTS")}

"""A Valkey that waits for no disk: scripts are asked what they do, not what a crash leaves."""

from collections.abc import Iterator

import pytest

from segrelay.ops.embedded import EmbeddedRedis
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect


@pytest.fixture(scope="package")
def redis(valkey: EmbeddedRedis) -> Iterator[Redis]:
    """A client of the Valkey of all worlds and gates, each of which has a name of its own."""
    with connect(valkey.url) as client:
        client.config_set("appendfsync", "no")
        yield client
        client.config_set("appendfsync", "always")

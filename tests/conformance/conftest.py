"""A Valkey that waits for no disk: scripts are asked what they do, not what a crash leaves."""

from collections.abc import Iterator

import pytest

from segrelay.ops.embedded import EmbeddedRedis
from segrelay.worker.contract.redis.connection import connect


@pytest.fixture(scope="package", autouse=True)
def _no_waits_for_the_disk(valkey: EmbeddedRedis) -> Iterator[None]:
    with connect(valkey.url) as client:
        client.config_set("appendfsync", "no")
        yield
        client.config_set("appendfsync", "always")

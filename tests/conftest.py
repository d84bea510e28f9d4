"""A real Valkey for every test that asks for one; each pytest process has its own."""

from collections.abc import Iterator

import pytest

from ops.embedded import EmbeddedRedis, ensure_running, stop
from worker.contract.connection import connect


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    data_dir = tmp_path_factory.mktemp("valkey")
    yield ensure_running(data_dir)
    stop(data_dir)


@pytest.fixture
def redis_url(valkey: EmbeddedRedis) -> str:
    """The URL of an empty database."""
    with connect(valkey.url) as client:
        client.flushall()
    return valkey.url

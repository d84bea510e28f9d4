"""A real Valkey for every test that asks for one; each pytest process has its own."""

import os
import signal
from collections.abc import Iterator

import pytest
import structlog

from ops.embedded.lifecycle import EmbeddedRedis, ensure_running, stop
from worker.contract.redis.connection import connect

# A shell that runs tests in the background lets them ignore Ctrl-C, and so what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

OTHER_REDIS = "SEGRELAY_TEST_REDIS_URL"


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A command that a test calls sets up its log; the next test has one of its own."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """The embedded one, or the one that the environment names: it will be emptied."""
    other = os.environ.get(OTHER_REDIS)
    if other:
        yield EmbeddedRedis(other, pid=0)
        return
    data_dir = tmp_path_factory.mktemp("valkey")
    yield ensure_running(data_dir)
    stop(data_dir)


@pytest.fixture
def redis_url(valkey: EmbeddedRedis) -> str:
    """The URL of an empty database."""
    with connect(valkey.url) as client:
        client.flushall()
    return valkey.url

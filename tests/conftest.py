"""What all tests share: a real Valkey for each pytest process, and how much is tried."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace

import hypothesis
import pytest
import structlog

from segrelay.jsonnet.compiled.running.limits import FRAMES
from segrelay.ops.embedded import EmbeddedRedis, ensure_running, stop
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.connection import connect
from tests.hash_slots import HashSlotWatch
from tests.nightly import NIGHTLY, amount
from tests.processor_time import (  # noqa: F401 - hooks
    pytest_runtest_makereport,
    pytest_terminal_summary,
)
from tests.redis_user import restricted_url
from tests.sealed import seal_all
from tests.topologies import LocalCluster

# A shell that runs tests in the background lets them ignore Ctrl-C, and so what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The first compiled template that renders does so for good; hypothesis objects amid a test.
sys.setrecursionlimit(FRAMES)

_OURS = "SEGRELAY_"

hypothesis.settings.register_profile("ours", deadline=None, max_examples=amount(50, 1_000))
hypothesis.settings.load_profile("ours")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only the night has time for."""
    left_out = [item for item in items if not NIGHTLY and item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _own_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """The log, environment and protection of a test; the next one has its own.

    A command that a test calls sets them up, and a process works with one Redis, but not with that
    of the test before.
    """
    if getattr(request, "param", False):
        seal_all()
    before = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    root = logging.getLogger()
    level = root.level
    yield
    PROTECTION.off()
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        del os.environ[name]
    os.environ.update(before)
    structlog.reset_defaults()
    root.setLevel(level)
    root.handlers = [one for one in root.handlers if type(one) is not logging.StreamHandler]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let tests of some modules run with people's data open, and sealed."""
    mark = metafunc.definition.get_closest_marker("also_sealed")
    if mark:
        only = [pytest.mark.nightly] if mark.kwargs.get("nightly") else []
        ways = [pytest.param(False, id="open"), pytest.param(True, id="sealed", marks=only)]
        metafunc.parametrize("_own_process", ways, indirect=True)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """The embedded one, or the one that the environment names: it will be emptied."""
    if other := os.environ.get("SEGRELAY_TEST_REDIS_URL"):
        yield EmbeddedRedis(other, pid=0)
        return
    data_dir = tmp_path_factory.mktemp("valkey")
    server = ensure_running(data_dir, wait_seconds=60)
    with connect(server.url) as client:
        yield replace(server, url=restricted_url(client, server.url))
    stop(data_dir, wait_seconds=60)


@pytest.fixture(scope="session")
def local_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three masters with a replica each."""
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def redis_url(valkey: EmbeddedRedis) -> Iterator[str]:
    """The URL of an empty database; no call of ours may have keys of two slots."""
    with connect(valkey.url) as client:
        client.flushall()
    watch = HashSlotWatch(valkey.url)
    yield valkey.url
    watch.end()
    assert not watch.refused, f"A Cluster would refuse: {watch.refused}"

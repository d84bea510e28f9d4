"""The suites that speak Redis, over the other implementation."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from segrelay.worker.contract.redis.client import Redis
from tests.ports import own_port
from tests.waiting import until

SUITES = ["tests/conformance/partition", "tests/conformance/gate", "tests/integration/producer"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def second_redis(tmp_path: Path) -> Iterator[str]:
    server = shutil.which("redis-server")
    assert server, "redis-server is missing: make test-system installs it"
    port = own_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    options += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    with suppress(redis.ConnectionError), Redis(port=port) as client:
        return bool(client.ping())
    return False


@pytest.mark.parametrize("suite", SUITES)
def test_it_works_the_same_on_redis(second_redis: str, suite: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", suite],
        cwd=ROOT,
        env={**os.environ, "SEGRELAY_TEST_REDIS_URL": second_redis},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-4000:]

"""A client of a Redis that is empty, and a sandbox that is as new."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from segrelay.sandbox.settings import SandboxSettings
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from tests.rig import SandboxProcess
from tests.warm import WarmProcess

CALM = SandboxSettings().model_dump(mode="json")
"""The sandbox's settings before each test, whatever the one before has changed."""


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with closing(connect(redis_url)) as connected:
        yield connected


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxProcess]:
    with SandboxProcess(launch=WarmProcess) as process:
        yield process


@pytest.fixture
def sandbox(sandbox_process: SandboxProcess) -> SandboxProcess:
    sandbox_process.reset()
    sandbox_process.settings(**CALM)
    return sandbox_process

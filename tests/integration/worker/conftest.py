"""What tests of adapters and of the contract ask Redis with."""

from contextlib import closing

import pytest

from segrelay.worker.contract.redis.connection import connect


@pytest.fixture
def client(redis_url):
    with closing(connect(redis_url)) as connected:
        yield connected

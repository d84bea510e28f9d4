"""A configuration on the Redis that all tests share, which is empty."""

from pathlib import Path

import pytest

from tests.integration.producer.backfill.backfill_relay import Relay


@pytest.fixture
def relay(tmp_path: Path, redis_url: str) -> Relay:
    return Relay(tmp_path, redis_url)

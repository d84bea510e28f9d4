"""Worlds for drains, closed at the end of each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from segrelay.worker.contract.redis.client import Redis
from tests.conformance.drain.world import World


@pytest.fixture
def make_world(redis: Redis) -> Iterator[Callable[..., World]]:
    redis.flushdb()
    with ExitStack() as stack:

        def make(*args: Any, **options: Any) -> World:
            return stack.enter_context(World(redis, *args, **options))

        yield make

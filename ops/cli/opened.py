"""How a command gets at the configuration and at Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from redis import Redis

from worker.contract.connection import connect, resolve_url, wait_ready
from worker.contract.settings import Settings, load_settings


@contextmanager
def opened() -> Iterator[tuple[Settings, Redis]]:
    """Load the configuration, and wait up to 10 s for Redis.

    Raises:
        ConfigurationInvalid: With every problem.
        RedisUnavailable: Redis was not ready in time.
    """
    settings = load_settings()
    url = resolve_url(settings.redis)
    wait_ready(url)
    with closing(connect(url)) as client:
        yield settings, client

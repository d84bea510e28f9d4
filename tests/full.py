"""A Redis at its `maxmemory`."""

from collections.abc import Iterator
from contextlib import contextmanager

from segrelay.worker.contract.redis.client import Redis


@contextmanager
def full(client: Redis, most: str = "1") -> Iterator[None]:
    """Let Redis refuse whatever may grow."""
    client.config_set("maxmemory", most)
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")

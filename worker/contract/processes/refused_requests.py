"""The count of requests that the receivers refused for their size.

Lytics drops the events of these for good, so that somebody has to know of them.
"""

from __future__ import annotations

from typing import Final, cast

from redis import Redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors

_TOO_LARGE: Final = "too_large"


def count_too_large(client: Redis) -> None:
    """Count one more refused request."""
    with redis_errors():
        client.hincrby(keys.REFUSALS, _TOO_LARGE, 1)


def too_large(client: Redis) -> int:
    """Return how many requests were refused."""
    with redis_errors():
        return int(cast("bytes | None", client.hget(keys.REFUSALS, _TOO_LARGE)) or 0)

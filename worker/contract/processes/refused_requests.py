"""The requests that the receivers refused for their size: how many, and by which limit.

Lytics drops the events of these for good, so that somebody has to know of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors

_COUNT: Final = "too_large"
_WHY: Final = "too_large_why"
_LIMIT: Final = "too_large_limit"


@dataclass(frozen=True, slots=True)
class TooLargeRequests:
    """The requests that were refused.

    Args:
        count: How many, ever.
        why: What the last one was, such as "larger than 1,000 bytes"; "" = not known.
        limit_bytes: The limit that it exceeded; 0 = another one than that of its bytes.
    """

    count: int = 0
    why: str = ""
    limit_bytes: int = 0


def count_too_large(client: Redis, why: str, limit_bytes: int) -> None:
    """Count one more refused request.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        pipe = client.pipeline()
        pipe.hincrby(keys.REFUSALS, _COUNT, 1)
        pipe.hset(keys.REFUSALS, mapping={_WHY: why, _LIMIT: limit_bytes})
        pipe.execute()


def read_too_large(client: Redis) -> TooLargeRequests:
    """Return the requests that were refused.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        found: Any = client.hmget(keys.REFUSALS, _COUNT, _WHY, _LIMIT)
    count, why, limit = found
    return TooLargeRequests(int(count or 0), (why or b"").decode(), int(limit or 0))

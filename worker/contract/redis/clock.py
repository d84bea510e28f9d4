"""Redis' clock, by which all moments in Redis are told."""

from __future__ import annotations

from typing import Any

from redis import Redis

from worker.contract.redis.connection import redis_errors


def now_us(client: Redis) -> int:
    """Return Redis' time, in microseconds since 1970."""
    with redis_errors():
        clock: Any = client.time()
    seconds, micros = clock
    return int(seconds) * 1_000_000 + int(micros)


def now_ms(client: Redis) -> int:
    """Return Redis' time, in milliseconds since 1970."""
    return now_us(client) // 1_000

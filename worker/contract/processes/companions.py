"""The processes beside workers and receivers: Flower and the metrics, and when each was seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import run_script

FLOWER: Final = "flower"
METRICS: Final = "metrics"
_TELL: Final = """\
#!lua flags=allow-oom
-- Writes that a process runs. KEYS[1] seen   ARGV[1] its kind
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now))
"""


def tell_seen(client: redis.Redis, kind: str) -> None:
    """Record in Redis that a process of this kind runs now."""
    with redis_errors():
        run_script(client, _TELL, (keys.SEEN,), (kind,))


def read_seen(client: redis.Redis) -> Mapping[str, int]:
    """Return when a process of each kind was last seen (ms, Redis' clock)."""
    with redis_errors():
        stored: Any = client.hgetall(keys.SEEN)
    return {kind.decode(): int(at) for kind, at in stored.items()}

"""Samples of how much is settled and how much waits: workers write them, `status` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors

EVERY_SECONDS: Final = 10.0
KEPT: Final = 360
"""The number of samples that are kept: an hour of them."""
_READ: Final = 90
"""The number of samples that are read: a quarter of an hour of them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The counts at one moment.

    Args:
        at_ms: Redis' clock.
        counts: By destination, as `progress.lua` names them.
        quarantined: Records in the quarantine.
    """

    at_ms: int
    counts: Mapping[str, Mapping[str, int]]
    quarantined: int = 0


def read_samples(client: redis.Redis) -> Sequence[Sample]:
    """Return the samples of the last quarter of an hour, and the oldest; the newest first.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        pipe.lrange(keys.PROGRESS, 0, _READ - 1)
        pipe.lrange(keys.PROGRESS, -1, -1)
        texts: Any = pipe.execute()
    found = {
        one.at_ms: one for text in (*texts[0], *texts[1]) if (one := Sample(**orjson.loads(text)))
    }
    return sorted(found.values(), key=lambda one: -one.at_ms)

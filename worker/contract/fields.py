"""The names of the fields that profiles had lately.

`template check` compares what a template asks for with them; no value is kept. A producer looks at
one profile a second, which is enough to know the fields and costs nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import orjson

from segrelay.worker.contract import keys
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.errors import PayloadRefused, RedisUnavailable

EVERY_SECONDS: Final = 1.0
MOST_NAMES: Final = 5_000
KEPT_MS: Final = 30 * 86_400_000
"""The time in ms after which a field that no profile had is forgotten."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
"""The form of names that are kept; others may be values that became keys, such as an email."""


class SeenFields:
    """Notes the names of the fields of some of the profiles that a producer publishes."""

    def __init__(self, client: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._next_at = float("-inf")

    def note(self, packed: bytes) -> None:
        """Note the field names of a profile, at most once a second; failures are ignored.

        Args:
            packed: As its delivery carries it, see `events.decode_profile`.
        """
        now = self._clock()
        if now < self._next_at:
            return
        self._next_at = now + EVERY_SECONDS
        with suppress(RedisUnavailable, PayloadRefused, orjson.JSONDecodeError):
            self._write(orjson.loads(decode_profile(packed)))

    def _write(self, profile: dict[str, Any]) -> None:
        now_ms = time.time_ns() // 1_000_000
        names = {name: now_ms for name in profile if _NAME.fullmatch(name)}
        if not names:
            return
        pipe = self._client.pipeline(transaction=False)
        pipe.zadd(keys.FIELDS, names)
        pipe.zremrangebyscore(keys.FIELDS, "-inf", now_ms - KEPT_MS)
        pipe.zremrangebyrank(keys.FIELDS, 0, -MOST_NAMES - 1)
        pipe.execute()


def seen_fields(client: Redis) -> frozenset[str]:
    """Return the names of the fields that profiles had lately."""
    names: Any = client.zrange(keys.FIELDS, 0, -1)
    return frozenset(name.decode() for name in names)

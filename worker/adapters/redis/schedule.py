"""`RedisSchedule`: which errands are due, for the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import redis

from worker.contract import keys
from worker.contract.celery.errands import SYNC_TASK, Errand
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings

AGAIN_MS: Final = 3_000
"""How long a bell may ring unanswered before it is rung again."""
LONGEST_LOCK_MS: Final = 60_000
"""A lock that ends later than it could have been set has ended: the clock was set back."""


class RedisSchedule:
    """Looks at the syncs that the configuration names.

    Args:
        client: With short timeouts: whoever asks must not wait for long.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._syncs = list(settings.sync)

    def due(self) -> list[Errand]:
        """Return the steps that are due, nobody does, and nobody was rung for; rings their bells.

        Raises:
            RedisUnavailable: Redis can't be asked.
        """
        if not self._syncs:
            return []
        with redis_errors():
            return [Errand(SYNC_TASK, name) for name in self._rung(self._due_syncs())]

    def _due_syncs(self) -> list[str]:
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        for name in self._syncs:
            pipe.hmget(keys.sync(name), "next", "until")
        (seconds, micros), *rows = pipe.execute()
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000
        return [
            name
            for name, (next_ms, until_ms) in zip(self._syncs, rows, strict=True)
            if int(next_ms or 0) <= now_ms
            and not now_ms < int(until_ms or 0) <= now_ms + LONGEST_LOCK_MS
        ]

    def _rung(self, names: Sequence[str]) -> list[str]:
        if not names:
            return []
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.set(keys.sync_bell(name), "1", nx=True, px=AGAIN_MS)
        return [name for name, was_set in zip(names, pipe.execute(), strict=True) if was_set]

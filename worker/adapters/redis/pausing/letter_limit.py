"""`LetterLimit`: pauses a destination whose dead letters reach the limit, so that none is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import redis.asyncio
import structlog

from worker.adapters.redis import scripts
from worker.adapters.redis.lease import boottime_seconds
from worker.contract import keys
from worker.contract.keys import PartitionKeys
from worker.contract.redis.connection import redis_errors
from worker.contract.settings.sections import RedisSettings
from worker.contract.triggers.pauses import DESTINATION, Pause, dumps, field_of

LOOK_SECONDS: Final = 2.0
LOG: Final = structlog.get_logger()


class LetterLimit:
    """Counts the dead letters of a destination every few seconds, and pauses a full one.

    Args:
        settings: They know the partitions of each destination.
        kept: As many letters a destination may have.
    """

    def __init__(self, client: redis.asyncio.Redis, *, settings: RedisSettings, kept: int) -> None:
        self._client = client
        self._settings = settings
        self._kept = kept
        self._next_look: dict[str, float] = {}

    async def pause_if_full(self, destination: str) -> None:
        """Pause a destination whose letters have reached the limit."""
        now = boottime_seconds()
        if now < self._next_look.get(destination, 0.0):
            return
        self._next_look[destination] = now + LOOK_SECONDS
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            for partition in self._settings.numbering.numbers:
                pipe.hlen(PartitionKeys(destination, partition).letters)
            letters = sum(await pipe.execute())
            if letters < self._kept:
                return
            reason = (
                f"{letters:,} dead letters lie there, as many as delivery.dead_letters_kept allows:"
                " see `segrelay dlq causes`, replay or discard some, then resume"
            )
            pause = Pause(reason, "segrelay", datetime.now(UTC).isoformat(timespec="seconds"))
            field = field_of(DESTINATION, destination)
            args = (field, dumps(pause))
            is_new = await scripts.call(self._client, "pause", (keys.PAUSED,), args)
        if is_new:
            LOG.error("destination.paused", destination=destination, reason=reason)

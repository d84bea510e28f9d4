"""`RedisRenames`: the renamed audiences as Redis knows them, for each destination."""

from __future__ import annotations

import redis.asyncio

from worker.adapters.redis import scripts
from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings
from worker.contract.triggers.renames import NO_RENAMES, Renames


class RedisRenames:
    """Reads the renames anew each time; as a rule there are none."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self._client = client
        self._triggers = {name: settings.triggers_of(name) for name in settings.destinations}

    async def of(self, destination: str) -> Renames:
        """Return the renames that hold now."""
        with redis_errors():
            renamed = await scripts.pairs(self._client, keys.RENAMED)
            ids = await scripts.pairs(self._client, keys.AUDIENCES) if renamed else []
        if not renamed:
            return NO_RENAMES
        return Renames.of(
            {former.decode(): slug.decode() for former, slug in renamed},
            self._triggers[destination],
            {key.decode(): slug.decode() for key, slug in ids},
        )

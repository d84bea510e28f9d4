"""`RedisMeanings`: what the triggers of a destination mean, with the slugs of the ids they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio
from redis import Redis

from worker.adapters.redis import scripts
from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings, Trigger
from worker.contract.triggers.meaning import Meaning, named_audiences
from worker.contract.triggers.renames import NO_RENAMES, Renames


class RedisMeanings:
    """Knows what triggers mean; asks Redis each time which slugs their ids stand for."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self._client = client
        self._triggers = {name: settings.triggers_of(name) for name in settings.destinations}
        self._known: dict[str, tuple[list[Any], Mapping[str, Meaning]]] = {}

    async def of(self, destination: str) -> Mapping[str, Meaning]:
        """Return what the triggers of a destination mean, by their names."""
        triggers = self._triggers[destination]
        names = named_audiences(triggers)
        slugs: list[Any] = []
        with redis_errors():
            if names:
                slugs = list(await scripts.command(self._client, "HMGET", keys.AUDIENCES, *names))
            renamed = list(await scripts.pairs(self._client, keys.RENAMED))
        answer = [slugs, renamed]
        known = self._known.get(destination)
        if known is None or known[0] != answer:
            found = meanings(triggers, names, slugs, dict(renamed))
            known = self._known[destination] = (answer, found)
        return known[1]

    async def renames_of(self, destination: str) -> Renames:
        """Return the renamed audiences, as they concern a destination; as a rule there are none."""
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


def meanings(
    triggers: Sequence[Trigger],
    names: Sequence[str],
    slugs: Sequence[bytes | None],
    renamed: Mapping[bytes, bytes],
) -> dict[str, Meaning]:
    """Return what triggers mean, by their names.

    Args:
        triggers: As configured.
        names: The audiences that they name.
        slugs: The slug of each, if it is an id that is known.
        renamed: The new slugs of renamed audiences, by the former ones.
    """
    known = {name: slug.decode() for name, slug in zip(names, slugs, strict=True) if slug}
    moved = {former.decode(): slug.decode() for former, slug in renamed.items()}
    return {trigger.name: Meaning.of(trigger, known, moved) for trigger in triggers}


def read_meanings(client: Redis, settings: Settings) -> dict[str, Meaning]:
    """Return what all triggers mean, by their names."""
    triggers = list(settings.triggers.values())
    names = named_audiences(triggers)
    with redis_errors():
        slugs: Any = client.hmget(keys.AUDIENCES, names) if names else []
        renamed: Any = client.hgetall(keys.RENAMED)
    return meanings(triggers, names, slugs, renamed)

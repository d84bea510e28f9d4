"""`RedisNumbers`: gives audiences and triggers their numbers in the ledger, once and for ever."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import redis.asyncio

from worker.adapters import scripts
from worker.contract import keys
from worker.contract.connection import redis_errors

_AUDIENCE: Final = "a|"
_TRIGGER: Final = "t|"


class RedisNumbers:
    """Numbers names; what was learned once is never asked again. See `preparing.Numbers`."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}

    async def learn(self, audiences: Iterable[str], triggers: Iterable[str]) -> None:
        """Make sure that these have numbers."""
        wanted = [_AUDIENCE + name for name in audiences] + [_TRIGGER + name for name in triggers]
        unknown = [name for name in wanted if name not in self._numbers]
        if not unknown:
            return
        with redis_errors():
            numbers = await scripts.call(self._client, "names", (keys.NAMES,), unknown)
        for name, number in zip(unknown, numbers, strict=True):
            self._numbers[name] = int(number)
            self._names[int(number)] = name

    async def learn_all(self) -> None:
        """Learn all names that there are, so that a number can be told its name."""
        with redis_errors():
            known = await scripts.pairs(self._client, keys.NAMES)
        for name, number in known:
            self._numbers[name.decode()] = int(number)
            self._names[int(number)] = name.decode()

    def audience(self, slug: str) -> int:
        """Return an audience's number."""
        return self._numbers[_AUDIENCE + slug]

    def trigger(self, name: str) -> int:
        """Return a trigger's number."""
        return self._numbers[_TRIGGER + name]

    def slug(self, number: int) -> str:
        """Return the audience with this number."""
        return self._names[number].removeprefix(_AUDIENCE)

    def triggers(self) -> dict[int, str]:
        """Return the triggers by their numbers."""
        return {
            number: name.removeprefix(_TRIGGER)
            for number, name in self._names.items()
            if name.startswith(_TRIGGER)
        }

"""`RedisNumbers`: gives audiences and triggers their numbers in the ledger, once and for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import redis.asyncio

from worker.adapters.redis import scripts
from worker.contract import keys
from worker.contract.ledger import AUDIENCE_NAME
from worker.contract.redis.connection import redis_errors

_TRIGGER: Final = "t|"


class RedisNumbers:
    """The numbers that stand for names in packed ledgers; see `worker.batch.batch.Numbers`."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}

    async def learn(self, audiences: Iterable[str], triggers: Iterable[str]) -> None:
        """Look up the numbers of audiences and triggers, and give one to each that has none."""
        wanted = [AUDIENCE_NAME + name for name in audiences] + [
            _TRIGGER + name for name in triggers
        ]
        unknown = [name for name in wanted if name not in self._numbers]
        if not unknown:
            return
        with redis_errors():
            numbers = await scripts.call(
                self._client, "names", (keys.NAMES, keys.NUMBERED), unknown
            )
        for name, number in zip(unknown, numbers, strict=True):
            self._numbers[name] = int(number)
            self._names[int(number)] = name

    async def read(self) -> None:
        """Read all numbers from Redis, in place of those known so far."""
        with redis_errors():
            known = await scripts.pairs(self._client, keys.NAMES)
        self.replace(dict(known))

    def replace(self, known: Mapping[bytes, bytes]) -> None:
        """Replace all known numbers by those that Redis holds, given by name."""
        self._numbers = {name.decode(): int(number) for name, number in known.items()}
        self._names = {number: name for name, number in self._numbers.items()}

    def audience(self, slug: str) -> int:
        """Return an audience's number."""
        return self._numbers[AUDIENCE_NAME + slug]

    def trigger(self, name: str) -> int:
        """Return a trigger's number."""
        return self._numbers[_TRIGGER + name]

    def slugs(self, numbers: Iterable[int]) -> frozenset[str]:
        """Return the audiences with these numbers; a number whose name was lost has none."""
        names = (self._names.get(number, "") for number in numbers)
        return frozenset(
            name.removeprefix(AUDIENCE_NAME) for name in names if name.startswith(AUDIENCE_NAME)
        )

    def triggers(self) -> dict[int, str]:
        """Return the triggers by their numbers."""
        return {
            number: name.removeprefix(_TRIGGER)
            for number, name in self._names.items()
            if name.startswith(_TRIGGER)
        }

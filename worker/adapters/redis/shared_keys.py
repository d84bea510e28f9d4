"""`SharedKeys`: the keys that all partitions have in common, as a drain reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from worker.adapters.redis import scripts
from worker.adapters.redis.meanings import meanings
from worker.adapters.redis.numbers import RedisNumbers
from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings
from worker.contract.triggers.meaning import Meaning, named_audiences
from worker.contract.triggers.pauses import parse_pauses
from worker.contract.triggers.renames import NO_RENAMES, Renames


@dataclass(frozen=True, slots=True)
class Standing:
    """The pauses, meanings and streaks of a destination, read before a lease is taken.

    Args:
        paused: The names of paused triggers and the lanes of paused jobs; None = the destination
            is paused.
        meanings: What its triggers mean, by their names.
        streaks: Names of triggers that have a streak, of whichever destination.
    """

    paused: frozenset[str] | None
    meanings: Mapping[str, Meaning]
    streaks: frozenset[str]


class SharedKeys:
    """A reader of the keys that all partitions have in common.

    In a Cluster one node has all of these keys, and every drain asks it: so a drain reads them in
    two round trips, one before it takes its lease, and one under the lease.

    Args:
        numbers: They are replaced by what Redis has.
    """

    def __init__(
        self, client: redis.asyncio.Redis, settings: Settings, numbers: RedisNumbers
    ) -> None:
        self._client = client
        self._numbers = numbers
        self._triggers = {name: settings.triggers_of(name) for name in settings.destinations}
        self._audiences = {name: named_audiences(each) for name, each in self._triggers.items()}
        self._known: dict[str, tuple[Any, Mapping[str, Meaning]]] = {}

    async def standing(self, destination: str) -> Standing:
        """Read the pauses, meanings and streaks of a destination."""
        audiences = self._audiences[destination]
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.hgetall(keys.PAUSED)
            pipe.hkeys(keys.STREAKS)
            pipe.hgetall(keys.RENAMED)
            if audiences:
                pipe.hmget(keys.AUDIENCES, audiences)
            paused, streaks, renamed, *slugs = await pipe.execute()
        pauses = parse_pauses(paused)
        idle = frozenset({*pauses.triggers, *pauses.lanes})
        return Standing(
            None if destination in pauses.destinations else idle,
            self._meanings(destination, slugs[0] if slugs else [], renamed),
            frozenset(name.decode() for name in streaks),
        )

    def _meanings(
        self, destination: str, slugs: list[bytes | None], renamed: dict[bytes, bytes]
    ) -> Mapping[str, Meaning]:
        """Return the meanings of a destination's triggers; they are built anew only after a change.

        Args:
            destination: The destination's name.
            slugs: The slugs that Redis has for the audiences that the triggers name.
            renamed: The new slugs of renamed audiences, by the former ones.
        """
        answer = (slugs, renamed)
        known = self._known.get(destination)
        if known is None or known[0] != answer:
            triggers, audiences = self._triggers[destination], self._audiences[destination]
            found = meanings(triggers, audiences, slugs, renamed)
            known = self._known[destination] = (answer, found)
        return known[1]

    async def names(self, destination: str) -> Renames:
        """Read the numbers of all audiences and triggers, and return the renamed audiences.

        As a rule, none is.
        """
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.hgetall(keys.NAMES)
            pipe.hgetall(keys.RENAMED)
            numbers, renamed = await pipe.execute()
            # They may be thousands.
            slugs = await scripts.pairs(self._client, keys.AUDIENCES) if renamed else []
        self._numbers.replace(numbers)
        if not renamed:
            return NO_RENAMES
        return Renames.of(
            {former.decode(): slug.decode() for former, slug in renamed.items()},
            self._triggers[destination],
            {audience.decode(): slug.decode() for audience, slug in slugs},
        )

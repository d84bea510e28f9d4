"""The keys that all partitions have in common, as a drain reads them.

Among them the scopes of triggers with the slugs of the ids that they name, and the numbers of
audiences and triggers in the ledger (given once and for ever).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.batch.delivery import LoadedTrigger
from segrelay.worker.contract import keys
from segrelay.worker.contract.ledger import AUDIENCE_NAME
from segrelay.worker.contract.redis.client import AsyncPipeline, AsyncRedis, Pipeline, Redis
from segrelay.worker.contract.redis.scripts import (
    IN_ANY_CASE,
    run_script_async,
)
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.triggers import (
    Scope,
    named_audiences,
    parse_pauses,
)


def scopes(
    triggers: Sequence[Trigger],
    names: Sequence[str],
    slugs: Sequence[bytes | None],
) -> dict[str, Scope]:
    """Return the scopes of triggers, by the triggers' names.

    Args:
        triggers: As configured.
        names: The audiences that they name.
        slugs: The slug of each, if it is an id that is known.
    """
    known = {name: slug.decode() for name, slug in zip(names, slugs, strict=True) if slug}
    return {trigger.name: Scope.of(trigger, known) for trigger in triggers}


def read_scopes(client: Redis, settings: Settings) -> dict[str, Scope]:
    """Read the scopes of all triggers, by the triggers' names."""
    triggers = list(settings.triggers.values())
    names = named_audiences(triggers)
    slugs: Any = client.hmget(keys.AUDIENCES, names) if names else []
    return scopes(triggers, names, slugs)


def read_identified(client: Redis) -> frozenset[str]:
    """Return the slugs of which an id is known, and these ids."""
    slugs: Any = client.hgetall(keys.AUDIENCES)
    return frozenset(name.decode() for name in {*slugs, *slugs.values()})


def ask_editions(pipe: AsyncPipeline | Pipeline, triggers: Iterable[str]) -> None:
    """Ask for the newest editions of triggers, whose answer `newest_editions` reads."""
    pipe.hmget(keys.FINGERPRINTS, list(triggers) or [""])


async def tell_newest(
    client: AsyncRedis, triggers: Mapping[str, LoadedTrigger], told: dict[str, str]
) -> None:
    """Make the fingerprints of triggers the newest, those that were not told before.

    A process that is forked anew inherits what its node has told: what it loaded then may be older
    by now than what others use.
    """
    changed = {
        name: one.edition
        for name, one in triggers.items()
        if not one.stopped and told.get(name) != one.edition
    }
    if changed:
        words = ("HSET", *chain.from_iterable(changed.items()))
        await run_script_async(client, IN_ANY_CASE, (keys.FINGERPRINTS,), words)
        told |= changed


def newest_editions(triggers: Iterable[str], answer: Sequence[bytes | None]) -> dict[str, str]:
    """Return the newest editions of triggers by their names, where one is known."""
    pairs = zip(triggers, answer, strict=False)
    return {name: edition.decode() for name, edition in pairs if edition}


_TRIGGER: Final = "t|"


class RedisNumbers:
    """The numbers that stand for names in packed ledgers."""

    def __init__(self, client: AsyncRedis) -> None:
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
        numbers = await run_script_async(
            self._client, scripts.source("names"), (keys.NAMES, keys.NUMBERED), unknown
        )
        for name, number in zip(unknown, numbers, strict=True):
            self._numbers[name] = int(number)
            self._names[int(number)] = name

    async def read(self) -> None:
        """Read the numbers of all audiences and triggers anew."""
        (ask,) = ASK_NAMES
        self.replace(await self._client.execute_command(*ask))

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


@dataclass(frozen=True, slots=True)
class Standing:
    """The pauses, scopes and streaks of a destination, read before a lease is taken.

    Args:
        paused: The names of paused triggers and the lanes of paused jobs; None = the destination
            is paused.
        scopes: The scopes of its triggers, by their names.
        streaks: Names of triggers that have a streak, of whichever destination.
    """

    paused: frozenset[str] | None
    scopes: Mapping[str, Scope]
    streaks: frozenset[str]


ASK_NAMES: Final = (("HGETALL", keys.NAMES),)
"""The command whose answer `RedisNumbers.replace` takes."""


class SharedKeys:
    """A reader of the keys that all partitions have in common.

    In a Cluster one node has all of these keys, and every drain asks it: so a drain reads them in
    one round trip before it takes its lease; the numbers follow under the lease.
    """

    def __init__(self, client: AsyncRedis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._triggers = {name: settings.triggers_of(name) for name in settings.destinations}
        self._audiences = {name: named_audiences(each) for name, each in self._triggers.items()}
        self._known: dict[str, tuple[Any, Mapping[str, Scope]]] = {}

    async def standing(self, destination: str) -> Standing:
        """Read the pauses, scopes and streaks of a destination."""
        audiences = self._audiences[destination]
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(keys.PAUSED)
        pipe.hkeys(keys.STREAKS)
        if audiences:
            pipe.hmget(keys.AUDIENCES, audiences)
        paused, streaks, *slugs = await pipe.execute()
        pauses = parse_pauses(paused)
        idle = frozenset({*pauses.triggers, *pauses.lanes})
        return Standing(
            None if destination in pauses.destinations else idle,
            self._scopes(destination, slugs[0] if slugs else []),
            frozenset(name.decode() for name in streaks),
        )

    def _scopes(self, destination: str, slugs: list[bytes | None]) -> Mapping[str, Scope]:
        """Return the scopes of a destination's triggers; they are built anew only after a change.

        Args:
            destination: The destination's name.
            slugs: The slugs that Redis has for the audiences that the triggers name.
        """
        known = self._known.get(destination)
        if known is None or known[0] != slugs:
            triggers, audiences = self._triggers[destination], self._audiences[destination]
            found = scopes(triggers, audiences, slugs)
            known = self._known[destination] = (slugs, found)
        return known[1]

    async def wants(self, destination: str) -> tuple[Mapping[str, Scope], Mapping[str, str]]:
        """Read the scopes and the newest editions of a destination's triggers, by their names."""
        names = [one.name for one in self._triggers[destination]]
        pipe = self._client.pipeline(transaction=False)
        pipe.hmget(keys.AUDIENCES, self._audiences[destination] or [""])
        ask_editions(pipe, names)
        slugs, editions = await pipe.execute()
        found = self._scopes(destination, slugs if self._audiences[destination] else [])
        return found, newest_editions(names, editions)

"""The keys that all partitions have in common, as a drain reads them.

Among them the scopes of triggers with the slugs of the ids that they name, and the numbers of
audiences and triggers in the ledger (given once and for ever). So are the pauses that a trigger or
a destination gets without a person:

- A trigger whose deliveries all die of one cause (`RedisStreaks`).
- A destination whose dead letters reach the limit, so that none is lost (`DeadLetterLimit`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

import structlog

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.adapters.redis.partition import boottime_seconds
from segrelay.worker.adapters.redis.scripts import until_confirmed
from segrelay.worker.batch.delivery import Failure, LoadedTrigger
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.ledger import AUDIENCE_NAME
from segrelay.worker.contract.redis.client import AsyncRedis, Redis
from segrelay.worker.contract.redis.scripts import (
    IN_ANY_CASE,
    run_script_async,
)
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.contract.triggers import (
    DESTINATION,
    DIES,
    TRIGGER,
    Pause,
    Scope,
    dumps,
    field_of,
    named_audiences,
    parse_pauses,
)
from segrelay.worker.core.messages import normalise_message


def scopes(
    triggers: Sequence[Trigger],
    names: Sequence[str],
    slugs: Sequence[bytes | None],
) -> dict[str, Scope]:
    """Return the scopes of triggers, by the triggers' names.

    Args:
        triggers: The triggers, as configured.
        names: The audiences that the triggers name, as slugs or ids.
        slugs: The slug of each of `names` that is a known id; None for the others.
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


def ask_editions(triggers: Collection[str]) -> tuple[str, ...]:
    """Return the command that reads the newest editions of triggers, for `newest_editions`."""
    return ("HMGET", keys.FINGERPRINTS, *(triggers or [""]))


async def tell_newest(
    client: AsyncRedis, triggers: Mapping[str, LoadedTrigger], told: dict[str, str]
) -> None:
    """Tell Redis the editions of triggers as the newest, except those that it was told before.

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
        return self._numbers[AUDIENCE_NAME + slug]

    def trigger(self, name: str) -> int:
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
        streaks: The names of triggers whose last deliveries all died, of whichever destination.
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
        pipe.execute_command(*ask_editions(names))
        slugs, editions = await pipe.execute()
        found = self._scopes(destination, slugs if self._audiences[destination] else [])
        return found, newest_editions(names, editions)


LOG: Final = structlog.get_logger()


class RedisStreaks:
    """Counts streaks over all workers.

    Args:
        client: The client of Redis; it repeats no command by itself.
        running: The names of triggers that have a streak: `broken` asks Redis for these only.
        triggers: The triggers of the drain, by their names.
        may_repeat: A function that says whether a question that Redis did not answer should still
            be repeated.
    """

    def __init__(
        self,
        client: AsyncRedis,
        running: Iterable[str] = (),
        triggers: Mapping[str, LoadedTrigger] = MappingProxyType({}),
        *,
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client = client
        self._may_repeat = may_repeat
        self._running = set(running)
        self._triggers = triggers

    async def may_die(self, trigger: str, failure: Failure, count: int) -> int:
        """Return how many of these deliveries may die; if not all may, the trigger is paused.

        It is asked between an answer and its settlement, so it is repeated like that.
        """
        self._running.add(trigger)
        args = (
            trigger,
            failure.cause,
            count,
            failure.reason.effects.in_a_row,
            field_of(TRIGGER, trigger),
            self._pause_text(trigger, failure),
            secrets.token_hex(8),
        )

        async def ask() -> int:
            return int(
                await run_script_async(
                    self._client, scripts.source("streak"), (keys.STREAKS, keys.PAUSED), args
                )
            )

        may_die = await until_confirmed(ask, self._may_repeat)
        if may_die < count:
            _log_paused(trigger, failure)
        return may_die

    async def broken(self, trigger: str) -> None:
        """End a trigger's streak, because one of its deliveries was made."""
        if trigger in self._running:
            self._running.discard(trigger)
            await self._client.execute_command("HDEL", keys.STREAKS, trigger)

    async def pause(self, trigger: str, failure: Failure) -> None:
        """Pause a trigger whose deliveries all die of one cause, and name it as the reason."""
        text = self._pause_text(trigger, failure)
        if await _pause(self._client, field_of(TRIGGER, trigger), text):
            _log_paused(trigger, failure)

    async def stop(self, trigger: str, reason: str) -> None:
        """Pause a trigger for a reason other than a streak of dead deliveries."""
        if await _pause(self._client, field_of(TRIGGER, trigger), _text_of(reason)):
            LOG.error("trigger.paused", trigger=trigger, reason=reason)

    def _pause_text(self, trigger: str, failure: Failure) -> bytes:
        """Return the pause, with the edition of the trigger if that is what everything dies of."""
        loaded = self._triggers.get(trigger)
        edition = loaded.edition if loaded and failure.reason.effects.names_template else ""
        reason = f"{DIES} ({failure.cause}): {normalise_message(failure.message)}"
        return _text_of(reason, edition)


async def _pause(client: AsyncRedis, field: str, text: bytes) -> bool:
    """Pause a trigger or a destination, and say whether it was not paused yet."""
    args = ("HSETNX", field, text)
    return bool(await run_script_async(client, IN_ANY_CASE, (keys.PAUSED,), args))


def _log_paused(trigger: str, failure: Failure) -> None:
    LOG.error("trigger.paused", trigger=trigger, reason=failure.reason, cause=failure.cause)


def _text_of(reason: str, edition: str = "") -> bytes:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return dumps(Pause(reason, "segrelay", at, edition))


LOOK_SECONDS: Final = 2.0


class DeadLetterLimit:
    """Counts the dead letters of a destination every few seconds, and pauses a full one.

    Args:
        settings: The configuration, which says how many partitions there are.
        kept: The number of dead letters at which a destination pauses.
    """

    def __init__(self, client: AsyncRedis, *, settings: RedisSettings, kept: int) -> None:
        self._client = client
        self._settings = settings
        self._kept = kept
        self._next_look: dict[str, float] = {}

    async def pause_if_full(self, destination: str) -> bool:
        """Pause a destination whose dead letters have reached the limit; say whether they have.

        It counts them every two seconds at most, and returns False in between.
        """
        now = boottime_seconds()
        if now < self._next_look.get(destination, 0.0):
            return False
        self._next_look[destination] = now + LOOK_SECONDS
        pipe = self._client.pipeline(transaction=False)
        for partition in range(self._settings.partitions):
            pipe.hlen(PartitionKeys(destination, partition).dead_letters)
        dead_letters = sum(await pipe.execute())
        if dead_letters < self._kept:
            return False
        reason = (
            f"{dead_letters:,} dead letters lie there, as many as delivery.dead_letters_kept"
            " allows:"
            " see `segrelay dlq causes`, replay or discard some, then resume"
        )
        if await _pause(self._client, field_of(DESTINATION, destination), _text_of(reason)):
            LOG.error("destination.paused", destination=destination, reason=reason)
        return True

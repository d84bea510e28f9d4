"""The keys that all partitions have in common, as a drain reads them.

Among them the scopes of triggers with the slugs of the ids that they name, the numbers of audiences
and triggers in the ledger (given once and for ever), and the addresses by which a renamed
destination is recognised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.adapters.redis.gate import fingerprint_of
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.ledger import AUDIENCE_NAME
from segrelay.worker.contract.redis.client import AsyncRedis, Redis
from segrelay.worker.contract.redis.scripts import (
    ScriptCall,
    run_each,
    run_script,
    run_script_async,
)
from segrelay.worker.contract.settings import Destination, Settings, Trigger
from segrelay.worker.contract.triggers import (
    NO_RENAMES,
    Renames,
    Scope,
    named_audiences,
    parse_pauses,
)
from segrelay.worker.core.gate import gate_id
from segrelay.worker.errors import WeMustAct


def scopes(
    triggers: Sequence[Trigger],
    names: Sequence[str],
    slugs: Sequence[bytes | None],
    renamed: Mapping[bytes, bytes],
) -> dict[str, Scope]:
    """Return the scopes of triggers, by the triggers' names.

    Args:
        triggers: As configured.
        names: The audiences that they name.
        slugs: The slug of each, if it is an id that is known.
        renamed: The new slugs of renamed audiences, by the former ones.
    """
    known = {name: slug.decode() for name, slug in zip(names, slugs, strict=True) if slug}
    moved = {former.decode(): slug.decode() for former, slug in renamed.items()}
    return {trigger.name: Scope.of(trigger, known, moved) for trigger in triggers}


def read_scopes(client: Redis, settings: Settings) -> dict[str, Scope]:
    """Read the scopes of all triggers, by the triggers' names."""
    triggers = list(settings.triggers.values())
    names = named_audiences(triggers)
    slugs: Any = client.hmget(keys.AUDIENCES, names) if names else []
    renamed: Any = client.hgetall(keys.RENAMED)
    return scopes(triggers, names, slugs, renamed)


def read_identified(client: Redis) -> frozenset[str]:
    """Return the slugs of which an id is known, former ones too, and these ids."""
    slugs: Any = client.hgetall(keys.AUDIENCES)
    renamed: Any = client.hgetall(keys.RENAMED)
    found = {*slugs, *slugs.values()}
    former = {old for old, new in renamed.items() if new in found}
    return frozenset(name.decode() for name in found | former)


_TRIGGER: Final = "t|"


class RedisNumbers:
    """The numbers that stand for names in packed ledgers; see `worker.batch.batch.Numbers`."""

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
        """Read all numbers from Redis, in place of those known so far."""
        known = (await self._client.execute_command("HGETALL", keys.NAMES)).items()
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


class SharedKeys:
    """A reader of the keys that all partitions have in common.

    In a Cluster one node has all of these keys, and every drain asks it: so a drain reads them in
    two round trips, one before it takes its lease, and one under the lease.

    Args:
        numbers: The numbers; they are replaced by what Redis has.
    """

    def __init__(self, client: AsyncRedis, settings: Settings, numbers: RedisNumbers) -> None:
        self._client = client
        self._numbers = numbers
        self._triggers = {name: settings.triggers_of(name) for name in settings.destinations}
        self._audiences = {name: named_audiences(each) for name, each in self._triggers.items()}
        self._known: dict[str, tuple[Any, Mapping[str, Scope]]] = {}

    async def standing(self, destination: str) -> Standing:
        """Read the pauses, scopes and streaks of a destination."""
        audiences = self._audiences[destination]
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
            self._scopes(destination, slugs[0] if slugs else [], renamed),
            frozenset(name.decode() for name in streaks),
        )

    def _scopes(
        self, destination: str, slugs: list[bytes | None], renamed: dict[bytes, bytes]
    ) -> Mapping[str, Scope]:
        """Return the scopes of a destination's triggers; they are built anew only after a change.

        Args:
            destination: The destination's name.
            slugs: The slugs that Redis has for the audiences that the triggers name.
            renamed: The new slugs of renamed audiences, by the former ones.
        """
        answer = (slugs, renamed)
        known = self._known.get(destination)
        if known is None or known[0] != answer:
            triggers, audiences = self._triggers[destination], self._audiences[destination]
            found = scopes(triggers, audiences, slugs, renamed)
            known = self._known[destination] = (answer, found)
        return known[1]

    async def names(self, destination: str) -> Renames:
        """Read the numbers of all audiences and triggers, and return the renamed audiences.

        As a rule, none is.
        """
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(keys.NAMES)
        pipe.hgetall(keys.RENAMED)
        numbers, renamed = await pipe.execute()
        # They may be thousands.
        slugs = (
            (await self._client.execute_command("HGETALL", keys.AUDIENCES)).items()
            if renamed
            else []
        )
        self._numbers.replace(numbers)
        if not renamed:
            return NO_RENAMES
        return Renames.of(
            {former.decode(): slug.decode() for former, slug in renamed.items()},
            self._triggers[destination],
            {audience.decode(): slug.decode() for audience, slug in slugs},
        )


RENAMED_FROM: Final = "renamed-from:"
"""The beginning of the token of a lease that nobody gets before a destination was renamed."""
_OWNER: Final = "segrelay-destination-rename"
_FOR_EVER_MS: Final = 10 * 365 * 24 * 3_600_000


def shut_renamed(client: Redis, settings: Settings) -> dict[str, str]:
    """Refuse drains under the new name of a known destination until that was carried over.

    Without its ledger, older events would pass newer ones, and both names would be delivered side
    by side. The leases of its partitions are taken; `segrelay rename destination` gives them back.

    Returns:
        The former names of those destinations.
    """
    former = former_names(client, settings)
    calls = [
        ScriptCall((PartitionKeys(name, number).lease,), (token, _FOR_EVER_MS, _OWNER))
        for name in settings.destinations
        for token in (f"{RENAMED_FROM}{former[name]}" if name in former else "",)
        for number in settings.redis.numbering.numbers
    ]
    run_each(client, scripts.source("shut"), calls)
    return former


def note_addresses(client: Redis, settings: Settings) -> None:
    """Write down the address of each destination whose secrets are set, but for renamed ones."""
    former = former_names(client, settings)
    known = {
        one.name: _address(settings, one)
        for one in settings.destinations.values()
        if one.name not in former
    }
    stored: Any = client.hgetall(keys.ADDRESSES)
    for name, address in known.items():
        if address and stored.get(name.encode()) != address.encode():
            run_script(client, scripts.source("address"), [keys.ADDRESSES], [name, address])


def former_names(client: Redis, settings: Settings) -> dict[str, str]:
    """Return the former names of renamed destinations whose data was not carried over.

    A new name is one without an address in Redis; the destination is known again by its host and
    its credentials. Two that are both configured may share them.
    """
    stored: Any = client.hgetall(keys.ADDRESSES)
    renamed = read_renamed(client)
    gone = {
        address.decode(): name.decode()
        for name, address in stored.items()
        if name.decode() not in settings.destinations and name.decode() not in renamed
    }
    addresses = {one.name: _address(settings, one) for one in settings.destinations.values()}
    return {
        name: gone[address]
        for name, address in addresses.items()
        if address in gone and name.encode() not in stored
    }


def read_renamed(client: Redis) -> dict[str, str]:
    """Return the new names of destinations that were renamed, by the former names."""
    stored: Any = client.hgetall(keys.MOVED)
    return {old.decode(): new.decode() for old, new in stored.items()}


def rename_hint(old: str, new: str) -> str:
    """Return the advice for a destination that was recognised under another name."""
    return (
        f"destination {new} has the host and the credentials of {old}, which the configuration does"
        f" not name any more: nothing is delivered under the new name until `segrelay rename"
        f" destination {old} {new}` has carried over what is known of it"
    )


def _address(settings: Settings, destination: Destination) -> str:
    """Return a destination's host and its credentials' fingerprint; "" = a secret is not set."""
    try:
        authorization = settings.authorization_of(destination)
        fingerprint = fingerprint_of(authorization)
    except WeMustAct:
        return ""
    host = gate_id(destination.base_url, "").removesuffix("|")
    return f"{host}|{fingerprint}"

"""Records of people who change their identity, and the names of profiles' fields.

**Stable ids.** A destination with `stable` names a field that stays the same when the identity
changes. For each value of it Redis keeps, under its digest, the identity with which it came last
and the time of that event. The partition of this record follows from the digest. Beside it, each
identity has the list of the stable ids that came with it: nobody is renamed from or to an identity
that others have, too. When an event brings another identity, the record's script writes a change;
the events of this stable id wait until a worker has renamed the person, or could not.

**Forwards.** A partition keeps a record of each of its people who is being renamed or was. While a
person is moved, nothing of them is delivered; afterwards, whatever comes under the former identity
goes to the new one. Only the holder of the partition's lease acts on it, and a renaming waits until
everybody has gone who took a lease before the record was there.

**Fields.** `template check` compares what a template asks for with the names of the fields that
profiles had lately; no value is kept. A producer looks at one profile a second, which is enough to
know the fields and costs nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol, Self

import orjson

from segrelay.worker.contract import keys
from segrelay.worker.contract.events import decode_profile, pack_profile
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.errors import PayloadRefused, RedisUnavailable

WAITS: Final = "w"
"""The answer of `see` about a stable id whose change of identity is under way."""
MOST_CHANGES: Final = 5
"""The number of changes of a stable id in a day; one that changes more often is not stable."""
DAY_MS: Final = 86_400_000
CLAIMS_OUTLIVE_MS: Final = DAY_MS
"""The time in ms by which an identity's list of stable ids outlives their records.

`erase` finds the records by the list.
"""
_BLOCKED: Final = frozenset({"", "undefined", "anonymous", "0", "1", "null", "none", "unknown"})
_LONGEST: Final = 512
_DIGITS: Final = 17


class Sighting(NamedTuple):
    """A stable id that came with an identity, in one event or more.

    Attributes:
        stable: Its digest.
        identity: The digest of the profile's key.
        key: The profile's key.
        time_us: Of the newest of these events.
        lasts: That event is an entrance: it is remembered without an end.
        forward: The identity to which events of this one go; "" = they stay.
        by_person: A person said so with `rename person`, and not the stable id itself.
    """

    stable: bytes
    identity: bytes
    key: str
    time_us: int
    lasts: bool
    forward: str = ""
    by_person: bool = False


class Recognizer(Protocol):
    """Knows with which identity each stable id of a destination came last.

    Attributes:
        field: The profile's field with the stable id.
        identity: The profile's field with the identity.
        partitions: The number of partitions.
    """

    field: str
    identity: str
    partitions: int

    async def see(self, sightings: Sequence[Sighting], triggers: Sequence[str]) -> list[str]:
        """Remember sightings, each with a trigger, and return what becomes of the events of each.

        Returns:
            Of each: "" = they go on, `WAITS`, or the key of the profile to which they belong.
        """


@dataclass(frozen=True, slots=True)
class StableIdChange:
    """A stable id that came with another identity, until the person is renamed.

    Args:
        old: The key of the profile until now.
        new: From now on.
        trigger: Of the event that showed it.
        text: The text in Redis.
    """

    old: str
    new: str
    trigger: str
    text: bytes

    @classmethod
    def loads(cls, text: bytes) -> Self:
        """Read what `stable_seen.lua` wrote: lines of trigger, time, former and new identity."""
        trigger, _, old, new = text.decode().split("\n")
        return cls(PROTECTION.unseal_name(old), PROTECTION.unseal_name(new), trigger, text)


class StableRecord(NamedTuple):
    """The parts of a stable id's record that Python reads.

    Attributes:
        refused: The digest (hex) of an identity with which it goes on as another person; "-" =
            none, and behind "<" one whose late events go to the present one.
        key: The key of the profile.
    """

    refused: str
    key: str

    @classmethod
    def loads(cls, text: bytes) -> Self:
        """Read a record that `stable_seen.lua` wrote."""
        _, _, _, refused, key = text.decode().split(" ", 4)
        return cls(refused, PROTECTION.unseal_name(key))


def stable_value(profile: dict[str, Any], field: str) -> str:
    """Return the stable id of a profile; "" = it has none that tells people apart."""
    value = profile.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return ""
    text = value.strip()
    return "" if text.lower() in _BLOCKED or len(text) > _LONGEST else text


def stable_digest(field: str, value: str) -> bytes:
    """Return the digest under which a stable id is known."""
    return digest_of(f"stable:{field}:{value}")


def time_text(time_us: int) -> str:
    """Return a time as a text of fixed length for Lua, whose numbers are not exact enough."""
    return f"{time_us:0{_DIGITS}d}"


class Moving(StrEnum):
    """The steps of renaming a person at one destination."""

    ARRIVING = "arriving"
    """Somebody is about to get this identity."""
    BEGUN = "begun"
    """The renaming has begun, and the destination was not asked yet."""
    ASKED = "asked"
    """The destination was asked; whether it has renamed the person is not known."""
    RENAMED = "renamed"
    """The destination has renamed the person, or need not; the ledger has not followed yet."""
    DONE = "done"
    """Events go to the new identity."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The record of a person under a former identity, or under one that is about to be theirs.

    Args:
        moving: The progress of the move.
        to: The key of the profile from now on; for somebody who arrives, the former digest (hex).
        partition: Of that profile.
        begun_ms: By Redis' clock; it tells one renaming from another.
        stable: The digest (hex) of the stable id that has changed its identity; "" = a person
            renamed them. Events with other stable ids are not handed on then.
        trigger: Of the event that showed it.
    """

    moving: Moving
    to: str
    partition: int = 0
    begun_ms: int = 0
    stable: str = ""
    trigger: str = ""

    def dumps(self) -> bytes:
        """Return the text that Redis keeps, the same each time."""
        row = asdict(self)
        if self.moving is not Moving.ARRIVING:
            row["to"] = PROTECTION.seal_name(self.to)
        if not self.stable:
            del row["stable"], row["trigger"]
        return orjson.dumps(row)

    @classmethod
    def loads(cls, text: bytes) -> Self:
        """Read what `dumps` has written."""
        stored: dict[str, Any] = orjson.loads(text)
        moving = Moving(stored["moving"])
        if moving is not Moving.ARRIVING:
            stored["to"] = PROTECTION.unseal_name(stored["to"])
        return cls(**{**stored, "moving": moving})


def key_of(profile: dict[str, Any], identity: str, digest: bytes) -> str | None:
    """Return the key under which a profile has this digest; None if its digest is another."""
    value = profile.get(identity)
    text = str(value).strip() if isinstance(value, str | int) else ""
    for each in (text, text.lower()):
        if digest_of(f"{identity}:{each}") == digest:
            return f"{identity}:{each}"
    return None


def profile_about(text: bytes, profile_key: str) -> bytes:
    """Return the text of an entry's profile with another identity.

    Raises:
        PayloadRefused: The compressed text is damaged.
        ValueError, AttributeError: It is no JSON object.
    """
    profile = orjson.loads(decode_profile(text))
    return pack_profile(orjson.dumps(with_identity(profile, profile_key)))


def with_identity(profile: Mapping[str, Any], profile_key: str) -> dict[str, Any]:
    """Return a profile with another identity.

    Raises:
        AttributeError, TypeError: It is no JSON object.
    """
    identity, _, value = profile_key.partition(":")
    names = ("_id", "payload_id") if identity == "id" else (identity,)
    known = next((name for name in names if profile.get(name) not in (None, "")), names[0])
    return {**profile, known: value}


EVERY_SECONDS: Final = 1.0
MOST_NAMES: Final = 5_000
KEPT_MS: Final = 30 * 86_400_000
"""The time in ms after which a field that no profile had is forgotten."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
"""The form of names that are kept; others may be values that became keys, such as an email."""


class SeenFields:
    """Notes the names of the fields of some of the profiles that a producer publishes."""

    def __init__(self, client: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._next_at = float("-inf")

    def note(self, packed: bytes) -> None:
        """Note the field names of a profile, at most once a second; failures are ignored.

        Args:
            packed: As its delivery carries it, see `events.decode_profile`.
        """
        now = self._clock()
        if now < self._next_at:
            return
        self._next_at = now + EVERY_SECONDS
        with suppress(RedisUnavailable, PayloadRefused, orjson.JSONDecodeError):
            self._write(orjson.loads(decode_profile(packed)))

    def _write(self, profile: dict[str, Any]) -> None:
        now_ms = time.time_ns() // 1_000_000
        names = {name: now_ms for name in profile if _NAME.fullmatch(name)}
        if not names:
            return
        pipe = self._client.pipeline(transaction=False)
        pipe.zadd(keys.FIELDS, names)
        pipe.zremrangebyscore(keys.FIELDS, "-inf", now_ms - KEPT_MS)
        pipe.zremrangebyrank(keys.FIELDS, 0, -MOST_NAMES - 1)
        pipe.execute()


def seen_fields(client: Redis) -> frozenset[str]:
    """Return the names of the fields that profiles had lately."""
    names: Any = client.zrange(keys.FIELDS, 0, -1)
    return frozenset(name.decode() for name in names)

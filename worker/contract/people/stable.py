"""Stable ids: the last identity of each, so that a change of identity is recognised.

A destination with `stable` names a field that stays the same when the identity changes. For each
value of it Redis keeps, under its digest, the identity with which it came last and the time of that
event. The partition of this record follows from the digest. Beside it, each identity has the list
of the stable ids that came with it: nobody is renamed from or to an identity that others have, too.

When an event brings another identity, the record's script writes a change; the events of this
stable id wait until a worker has renamed the person, or could not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, Self

from worker.contract.keys import digest_of
from worker.contract.numbering import Numbering

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
        by_person: A person said so with `person rename`, and not the stable id itself.
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
        numbering: The numbers of the partitions.
    """

    field: str
    identity: str
    numbering: Numbering

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
        text: What Redis has of it.
    """

    old: str
    new: str
    trigger: str
    text: bytes

    @classmethod
    def loads(cls, text: bytes) -> Self:
        """Read what `stable_seen.lua` wrote: lines of trigger, time, former and new identity."""
        trigger, _, old, new = text.decode().split("\n")
        return cls(old, new, trigger, text)


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
        return cls(refused, key)


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

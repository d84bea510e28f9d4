"""Records of people whose identity has changed, by which their events find the new identity.

A partition keeps a record of each of its people who is being renamed or was. While a person is
moved, nothing of them is delivered; afterwards, whatever comes under the former identity goes to
the new one. Only the holder of the partition's lease acts on it, and a renaming waits until
everybody has gone who took a lease before the record was there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import orjson

from worker.contract.events import decode_profile, pack_profile
from worker.contract.keys import digest_of


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
        moving: How far it has come.
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
        """Return the text that Redis keeps; older versions of segrelay know no stable ids."""
        row = asdict(self)
        if not self.stable:
            del row["stable"], row["trigger"]
        return orjson.dumps(row)

    @classmethod
    def loads(cls, text: bytes) -> Self:
        """Read what `dumps` has written."""
        stored: dict[str, Any] = orjson.loads(text)
        return cls(**{**stored, "moving": Moving(stored["moving"])})


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

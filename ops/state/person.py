"""Resolves what an operator typed to the digest and partition of a profile."""

from __future__ import annotations

from dataclasses import dataclass

from producer.events.identity import profile_key
from worker.contract.keys import digest_of
from worker.contract.numbering import Numbering
from worker.contract.settings import Settings
from worker.errors import PayloadRefused, UsageWrong


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """The digest and the partition of a profile.

    Args:
        partition: The number of the partition, the same at each destination.
    """

    digest: bytes
    partition: int


def person_named(text: str, settings: Settings, partitions: Numbering) -> KnownPerson:
    """Resolve a value of the identity field, or `field:value` of it, to a profile.

    Raises:
        UsageWrong: It can't be the value of an identity field.
    """
    key = key_named(text, settings)
    return KnownPerson(digest_of(key), partitions.of(key))


def key_named(text: str, settings: Settings) -> str:
    """Return the key of the profile that is meant by a value of the identity, or `field:value`."""
    identity = settings.delivery.identity
    value = text.removeprefix(f"{identity}:")
    name = "_id" if identity == "id" else identity
    try:
        return profile_key({name: value}, identity)
    except PayloadRefused as error:
        raise UsageWrong(f"This can't be anybody's identity: {error.message}") from error

"""Resolves what an operator typed to the digest and partition of a profile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from redis import Redis

from ops.state import scripts
from producer.events.identity import profile_key
from worker.contract import keys
from worker.contract.keys import PartitionKeys, digest_of
from worker.contract.numbering import Numbering
from worker.contract.people.forwards import Forward, Moving
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scanning import scan_fields
from worker.contract.redis.scripts import ScriptCall
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
    """Resolve a value of the identity field, or `field:value` of it, to a profile."""
    key = key_named(text, settings)
    return KnownPerson(digest_of(key), partitions.of(key))


def key_named(text: str, settings: Settings) -> str:
    """Return the profile key for a value of the identity field, or for `field:value`."""
    identity = settings.delivery.identity
    value = text.removeprefix(f"{identity}:")
    name = "_id" if identity == "id" else identity
    try:
        return profile_key({name: value}, identity)
    except PayloadRefused as error:
        raise UsageWrong(f"This can't be anybody's identity: {error.message}") from error


STOPPED_MS: Final = 120_000
"""Milliseconds after which a command that renames people counts as stopped if it was not seen. It
reports every few seconds, but waits for up to a minute with `--rate 1`."""


@dataclass(frozen=True, slots=True)
class ForwardedPerson:
    """A person who is being renamed or was, with the forwarding record at one destination."""

    destination: str
    person: KnownPerson
    forward: Forward


def read_forwards(client: Redis, places: Iterable[PartitionKeys]) -> Iterator[ForwardedPerson]:
    """Yield the forwarding records of all people who are being renamed or were."""
    for place in places:
        for name, text in chain.from_iterable(scan_fields(client, place.forwards)):
            if b"|" not in name:
                person = KnownPerson(bytes.fromhex(name.decode()), place.partition)
                yield ForwardedPerson(place.destination, person, Forward.loads(text))


def former_identities(forwards: Iterable[ForwardedPerson], digest: bytes) -> list[KnownPerson]:
    """Return the identities whose events go to this person, after any number of renamings."""
    left: defaultdict[bytes, list[KnownPerson]] = defaultdict(list)
    for each in forwards:
        if each.forward.moving is not Moving.ARRIVING:
            left[digest_of(each.forward.to)].append(each.person)
    found: dict[bytes, KnownPerson] = {}
    following = [digest]
    for each_digest in following:
        for person in left[each_digest]:
            if person.digest != digest and person.digest not in found:
                found[person.digest] = person
                following.append(person.digest)
    return list(found.values())


def present_key(forwards: Iterable[ForwardedPerson], digest: bytes) -> str:
    """Return the profile key to which an identity's events finally go; "" = they stay there."""
    following = {
        each.person.digest: each.forward.to
        for each in forwards
        if each.forward.moving is not Moving.ARRIVING
    }
    key = ""
    # Each record is followed once: records of several destinations may contradict each other.
    while to := following.pop(digest, ""):
        key, digest = to, digest_of(to)
    return key


def read_former_identities(
    client: Redis, places: Iterable[PartitionKeys], digest: bytes
) -> list[KnownPerson]:
    """Return the identities that a person has had, if their renaming has ended."""
    forwards = read_forwards(client, places)
    done = (each for each in forwards if each.forward.moving is Moving.DONE)
    return former_identities(done, digest)


def tell_renaming(client: Redis, digests: Sequence[bytes]) -> None:
    """Record that a command is renaming these people."""
    if digests:
        call = ScriptCall((keys.RENAMING,), [digest.hex() for digest in digests])
        scripts.run(client, "renaming_seen", [call])


def end_renaming(client: Redis, digests: Iterable[bytes]) -> None:
    """Record that nobody renames these people any more."""
    if gone := [digest.hex() for digest in digests]:
        with redis_errors():
            client.zrem(keys.RENAMING, *gone)


def read_stopped_renamings(client: Redis, now_ms: int) -> Mapping[str, int]:
    """Return the stopped renamings: digest (hex) → when the command was last seen (ms)."""
    with redis_errors():
        rows: Any = client.zrangebyscore(keys.RENAMING, 0, now_ms - STOPPED_MS, withscores=True)
    return {digest.decode(): int(seen_ms) for digest, seen_ms in rows}

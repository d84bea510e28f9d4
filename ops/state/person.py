"""Resolves what an operator typed to a profile's digest and partition, and reads its ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from segrelay.producer.events.payloads import profile_key
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.ledger import AUDIENCE_NAME, Record, unpack
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import PayloadRefused, UsageWrong

_DIGEST: Final = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}")


def is_digest(text: str) -> bool:
    """Say whether a text is the digest of a person, as `why` and `verify` print it."""
    return _DIGEST.fullmatch(text) is not None


class KnownPerson(NamedTuple):
    """The digest and the partition of a profile.

    Attributes:
        partition: The number of the partition, the same at each destination.
    """

    digest: bytes
    partition: int


def person_named(text: str, settings: Settings) -> KnownPerson:
    """Resolve a value of the identity field, or `field:value` of it, to a profile."""
    key = key_named(text, settings)
    return KnownPerson(digest_of(key), partition_of(key, settings.redis.partitions))


def key_named(text: str, settings: Settings) -> str:
    """Return the profile key for a value of the identity field, or for `field:value`."""
    identity = settings.delivery.identity
    value = text.removeprefix(f"{identity}:")
    name = "_id" if identity == "id" else identity
    try:
        return profile_key({name: value}, identity)
    except PayloadRefused as error:
        raise UsageWrong(f"This can't be anybody's identity: {error.message}") from error


_TRIGGER = "t|"


class LedgerLine(NamedTuple):
    """The last delivery of one trigger for one audience of a profile.

    Attributes:
        tried_us: The newest time (µs) tried without a sure answer; 0 = none.
        raised: True if the newest time is of a state event that told what was known, so nothing was
            sent.
    """

    audience: str
    trigger: str
    direction: Direction
    delivered_us: int
    tried_us: int
    raised: bool


class Names:
    """The names of audiences and triggers by their numbers in the ledger, read once."""

    def __init__(self, client: Redis) -> None:
        stored: Any = client.hgetall(keys.NAMES)
        self._names: Mapping[int, str] = {
            int(number): name.decode() for name, number in stored.items()
        }
        self._numbers = {name: number for number, name in self._names.items()}

    def number_of(self, audience: str) -> int:
        """Return the number of an audience; 0 = nothing was ever delivered about it."""
        return self._numbers.get(AUDIENCE_NAME + audience, 0)

    def audience(self, number: int) -> str:
        """Return the slug of the audience with a number in the ledger."""
        return self._names.get(number, f"{AUDIENCE_NAME}{number}").removeprefix(AUDIENCE_NAME)

    def trigger(self, number: int) -> str:
        """Return the name of the trigger with a number in the ledger."""
        return self._names.get(number, f"{_TRIGGER}{number}").removeprefix(_TRIGGER)

    def number_of_trigger(self, name: str) -> int:
        """Return a trigger's number; 0 where the ledger knows nothing of it."""
        return self._numbers.get(_TRIGGER + name, 0)

    def lines(self, record: Record) -> Iterator[LedgerLine]:
        """Yield the lines of a ledger record, with names instead of numbers."""
        for (audience, trigger), item in record.items.items():
            yield LedgerLine(
                self.audience(audience),
                self.trigger(trigger),
                item.direction,
                item.delivered_us,
                item.tried_us,
                item.raised,
            )


def read_records(client: Redis, partition: PartitionKeys, digests: Sequence[bytes]) -> list[Record]:
    """Return the records of profiles of one partition; an unknown profile has an empty one."""
    if not digests:
        return []
    texts: Any = client.mget([partition.ledger(digest) for digest in digests])
    return [unpack(text) for text in texts]

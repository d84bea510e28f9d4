"""Comparisons of an audience at its source with the ledger, and with Insider.

What the ledger knows to be newer than the scan is no drift: it has changed since.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import orjson
from redis import Redis

from ops.audiences.membership import Advance, standings
from ops.audiences.people import Person
from ops.insider.read_back import read_lists
from ops.insider.reader import ProfileReader
from ops.state.partitions import ask_each
from producer.sync.ledger import LedgerComparison
from worker.contract.keys import PartitionKeys
from worker.contract.ledger import LastDelivered
from worker.contract.numbering import Numbering
from worker.contract.settings import Settings
from worker.contract.words import Direction

_PEOPLE_A_CALL: Final = 1_000


@dataclass(frozen=True, slots=True)
class AudienceComparison:
    """The difference between an audience's source and the ledger of one destination.

    Args:
        changed: The number of people who are in one of them only, and whose newest event is newer
            than the scan: they are neither missing nor stale.
        missing: People in the source and not in the ledger; none where no trigger could enter them.
        stale: In the ledger, not in the source, by digest; None where nobody knows who it is. Also
            people who are named as members and of whom the ledger knows nothing.
        known: Digests of everybody of whom the ledger says that they were ever in it.
    """

    destination: str
    ledger: int
    both: int
    changed: int
    missing: Sequence[Person] = field(repr=False)
    stale: Mapping[bytes, Person | None] = field(repr=False)
    known: frozenset[bytes] = field(default=frozenset(), repr=False)

    @property
    def named_stale(self) -> list[Person]:
        """Return the people who should leave and whose identity is known."""
        return [person for person in self.stale.values() if person]


def compare(
    client: Redis,
    settings: Settings,
    audience: str,
    ledgers: Mapping[str, LedgerComparison],
    source: Mapping[bytes, Person],
    *,
    advance: Advance = lambda _: None,
) -> list[AudienceComparison]:
    """Compare the source with the ledgers of the destinations.

    `source` has the members by digest.
    """
    found = standings(client, settings, audience, advance)
    return [
        _compared(name, source, found.get(name, {}), ledger) for name, ledger in ledgers.items()
    ]


def _compared(
    destination: str,
    source: Mapping[bytes, Person],
    known: Mapping[bytes, LastDelivered],
    ledger: LedgerComparison,
) -> AudienceComparison:
    inside = {digest for digest, (now, _) in known.items() if now is Direction.ENTER}
    newer = {digest for digest, last in known.items() if ledger.is_newer(last)}
    missing = [person for digest, person in source.items() if ledger.is_missing(known.get(digest))]
    outside = inside - source.keys()
    stale: dict[bytes, Person | None] = dict.fromkeys(
        digest for digest in outside if ledger.is_stale(known[digest])
    )
    return AudienceComparison(
        destination,
        ledger=len(inside),
        both=len(inside & source.keys()),
        changed=len((inside ^ source.keys()) & newer),
        missing=missing,
        stale=stale,
        known=frozenset(known),
    )


def with_names(
    compared: AudienceComparison,
    members: Iterable[Person],
    names: Iterable[Person],
    source: Mapping[bytes, Person],
) -> AudienceComparison:
    """Return the comparison with the identities of stale people.

    Whoever is named as a member, is not in the source, and is unknown to the ledger, is stale too;
    the others of `names` are not.
    """
    stale = dict(compared.stale)
    for person in names:
        if person.digest in stale:
            stale[person.digest] = person
    for person in members:
        digest = person.digest
        if digest in stale or (digest not in source and digest not in compared.known):
            stale[digest] = person
    return replace(compared, stale=stale)


@dataclass(slots=True)
class SampleResult:
    """The result of reading a sample of people back from Insider.

    Args:
        wrong: Those of them whom Insider has otherwise than the source: `missing` there, or
            `stale`.
        unknown: People whom Redis no longer knows by what Insider calls them.
    """

    read: int = 0
    wrong: list[tuple[Literal["missing", "stale"], Person]] = field(default_factory=list)
    unknown: int = 0

    def add(self, other: SampleResult) -> None:
        """Add the result of other people."""
        self.read += other.read
        self.wrong += other.wrong
        self.unknown += other.unknown


def sampled(
    compared: AudienceComparison, source: Mapping[bytes, Person], count: int, chance: random.Random
) -> list[tuple[Person, bool]]:
    """Choose `count` people of the source and `count` stale ones; True = the source has them."""
    inside = [(person, True) for person in source.values()]
    outside = [(person, False) for person in compared.named_stale]
    return [
        *chance.sample(inside, min(count, len(inside))),
        *chance.sample(outside, min(count, len(outside))),
    ]


def read_back(
    client: Redis,
    reader: ProfileReader,
    sample: Sequence[tuple[Person, bool]],
    *,
    destination: str,
    partitions: Numbering,
    audience: str,
    attribute: str,
) -> Iterator[SampleResult]:
    """Read a sample back and compare it with the source; yield the result of each person."""
    known = _known_as(client, destination, partitions, [person for person, _ in sample])
    for person, should_be in sample:
        who = known.get(person.digest) or _by_email(person)
        if who is None:
            yield SampleResult(unknown=1)
            continue
        is_there = read_lists(reader, who, [attribute]).lists(audience, attribute)
        found = SampleResult(read=1)
        if is_there != should_be:
            found.wrong.append(("stale" if is_there else "missing", person))
        yield found


def _by_email(person: Person) -> dict[str, Any] | None:
    field_name, _, value = person.key.partition(":")
    return {"identifiers": {"email": value}} if field_name == "email" else None


def _known_as(
    client: Redis, destination: str, partitions: Numbering, people: Sequence[Person]
) -> dict[bytes, dict[str, Any]]:
    """Return the identifiers with which these people were last sent, as Redis remembers them."""
    known: dict[bytes, dict[str, Any]] = {}
    for first in range(0, len(people), _PEOPLE_A_CALL):
        part = people[first : first + _PEOPLE_A_CALL]
        answers = ask_each(
            client,
            part,
            lambda pipe, person: pipe.hget(
                PartitionKeys(destination, partitions.of(person.key)).who, person.digest.hex()
            ),
        )
        for person, text in zip(part, answers, strict=True):
            who = orjson.loads(text)[1] if text else None
            if who:
                known[person.digest] = who
    return known

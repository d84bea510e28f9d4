"""Comparisons of the memberships that Insider holds with those in the ledger.

It is the proof against silent drops: Insider answers 200 and writes nothing where an attribute is
not defined in its panel. A difference is read again after a moment, ledger and profile, before it
counts: both change while work goes on.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
from redis import Redis

from ops.insider.read_back import ReadBack, read_lists
from ops.insider.reader import ProfileReader
from ops.state.ledger import LedgerLine, Names, read_records
from worker.contract.keys import DIGEST_BYTES, REACHED_KEPT, PartitionKeys
from worker.contract.ledger import is_newer
from worker.contract.redis.connection import redis_errors
from worker.contract.words import Direction

ListSide = Literal["inside", "outside"]

_LARGEST: Final = "f" * 2 * DIGEST_BYTES
"""The largest digest, in hex."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A person to whom something was delivered.

    Args:
        who: `identifiers` or `insider_id`, as they were sent.
    """

    place: PartitionKeys
    digest: bytes
    who: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Membership:
    """A person's membership in one audience, as the ledger has it."""

    audience: str
    attribute: str
    place: ListSide


@dataclass(frozen=True, slots=True)
class Difference:
    """A membership that Insider does not hold as the ledger says.

    Args:
        found: The side at Insider; `unknown` = it does not know the profile.
    """

    destination: str
    profile: str
    audience: str
    attribute: str
    expected: ListSide
    found: str


@dataclass(slots=True)
class Verified:
    """The numbers of compared profiles and memberships, and the differences."""

    profiles: int = 0
    memberships: int = 0
    differences: list[Difference] = field(default_factory=list)

    def add(self, other: Verified) -> None:
        """Add the result of other people."""
        self.profiles += other.profiles
        self.memberships += other.memberships
        self.differences += other.differences


@dataclass(frozen=True, slots=True)
class Reached:
    """The people to whom something was delivered, as far as Redis remembers them.

    Args:
        about: The number of all people, estimated if `people` is a sample.
    """

    people: Sequence[Delivered]
    about: int


def read_reached(client: Redis, places: Sequence[PartitionKeys], *, until_ms: int) -> Reached:
    """Return the people whose last delivery is not later than `until_ms`.

    Of a partition with many people Redis keeps those with the smallest digests. Over all
    partitions those up to the smallest of these bounds are an even sample.
    """
    found: list[Delivered] = []
    bounds = [_LARGEST]
    for place in places:
        with redis_errors():
            rows: Any = client.hgetall(place.who)
        if len(rows) >= REACHED_KEPT:
            bounds.append(max(rows).decode())
        for digest, text in rows.items():
            at_ms, who = orjson.loads(text)
            if at_ms <= until_ms and who:
                found.append(Delivered(place, bytes.fromhex(digest.decode()), who))
    bound = min(bounds)
    people = [one for one in found if one.digest.hex() <= bound]
    return Reached(people, round(len(people) * int(_LARGEST, 16) / max(1, int(bound, 16))))


def sampled(everybody: Sequence[Delivered], count: int, chance: random.Random) -> list[Delivered]:
    """Choose `count` people at random."""
    return chance.sample(everybody, min(count, len(everybody)))


def expected(
    lines: Iterable[LedgerLine], lists: Mapping[str, str], *, until_us: int
) -> list[Membership]:
    """Return the memberships of which the ledger is sure, in audiences with a list at Insider.

    Args:
        lines: The lines of one profile.
        lists: Attribute by trigger; triggers without one keep no list.
        until_us: Events later than this may not be written there yet.
    """
    groups: defaultdict[tuple[str, str], list[LedgerLine]] = defaultdict(list)
    for line in lines:
        attribute = lists.get(line.trigger, "")
        if attribute and line.direction is not Direction.CHANGE:
            groups[line.audience, attribute].append(line)
    found = [
        _membership(audience, attribute, group, until_us)
        for (audience, attribute), group in groups.items()
    ]
    return [membership for membership in found if membership]


def _membership(
    audience: str, attribute: str, lines: Sequence[LedgerLine], until_us: int
) -> Membership | None:
    newest: tuple[int, Direction] | None = None
    for line in lines:
        if line.delivered_us and (
            newest is None or is_newer(line.delivered_us, line.direction, *newest)
        ):
            newest = (line.delivered_us, line.direction)
    if newest is None or newest[0] > until_us:
        return None
    if any(line.tried_us >= newest[0] for line in lines if line.tried_us):
        return None
    return Membership(audience, attribute, "inside" if newest[1] is Direction.ENTER else "outside")


class Verifier:
    """Compares the ledger with what one destination holds."""

    def __init__(
        self,
        client: Redis,
        reader: ProfileReader,
        lists: Mapping[str, str],
        *,
        until_us: int,
        again_seconds: float,
    ) -> None:
        self._client = client
        self._reader = reader
        self._lists = lists
        self._until_us = until_us
        self._again_seconds = again_seconds
        self._names = Names(client)

    def verify(self, people: Sequence[Delivered]) -> Iterator[Verified]:
        """Compare people; yield a result for each, and at last the differences seen twice."""
        suspects: list[Delivered] = []
        for person in people:
            memberships, differences = self._compare(person)
            if differences:
                suspects.append(person)
            yield Verified(1, memberships)
        if suspects:
            time.sleep(self._again_seconds)
        for person in suspects:
            _, differences = self._compare(person)
            if differences:
                yield Verified(differences=differences)

    def _compare(self, person: Delivered) -> tuple[int, list[Difference]]:
        (record,) = read_records(self._client, person.place, [person.digest])
        wanted = expected(self._names.lines(record), self._lists, until_us=self._until_us)
        if not wanted:
            return 0, []
        attributes = [membership.attribute for membership in wanted]
        found = read_lists(self._reader, person.who, attributes)
        differences = [
            Difference(
                person.place.destination,
                person.digest.hex(),
                membership.audience,
                membership.attribute,
                membership.place,
                actual,
            )
            for membership in wanted
            if (actual := _actual(found, membership)) not in (membership.place, "")
        ]
        return len(wanted), differences


def _actual(found: ReadBack, membership: Membership) -> str:
    """Return "inside", "outside" or "unknown", as Insider has the person; "" = do not compare."""
    if found.attributes is None:
        return "unknown" if membership.place == "inside" else ""
    return "inside" if found.lists(membership.audience, membership.attribute) else "outside"

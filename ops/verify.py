"""`segrelay verify`: compare the memberships that Insider holds with those in the ledger.

It is the proof against silent drops: Insider answers 200 and writes nothing where an attribute is
not defined in its panel. A difference is read again after a moment, ledger and profile, before it
counts: both change while work goes on.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final, Literal, Self

import orjson
import typer

from segrelay.ops.insider.live_check import ReadBack, list_of, read_lists, sample_attributes
from segrelay.ops.insider.reader import InsiderReader, ProfileReader
from segrelay.ops.state.acts import Reads
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.person import LedgerLine, Names, read_records
from segrelay.ops.terminal.console import progress
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import parse_seconds
from segrelay.ops.terminal.options import DestinationName
from segrelay.ops.terminal.tables import TableColumns, text_columns
from segrelay.worker.contract.keys import DIGEST_BYTES, REACHED_KEPT, PartitionKeys
from segrelay.worker.contract.ledger import is_newer
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import Destination, Settings
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.insider.api import CUSTOM
from segrelay.worker.errors import UsageWrong

ListSide = Literal["inside", "outside"]

_LARGEST: Final = "f" * 2 * DIGEST_BYTES
"""The largest digest, in hex."""


@dataclass(frozen=True, slots=True)
class ReachedPerson:
    """A person to whom something was delivered.

    Redis has them in `PartitionKeys.who` as `[at_ms, who]`.

    Args:
        who: `identifiers` or `insider_id`, as they were sent.
        at_ms: The time of the last delivery; Redis' clock.
    """

    partition: PartitionKeys
    digest: bytes
    who: Mapping[str, Any] = field(repr=False)
    at_ms: int = 0

    @classmethod
    def loads(cls, partition: PartitionKeys, digest: bytes, text: bytes) -> Self:
        """Read a person from the hash, where the digest is written in hex."""
        at_ms, who = orjson.loads(PROTECTION.unseal(text, digest))
        return cls(partition, bytes.fromhex(digest.decode()), who, at_ms)


@dataclass(frozen=True, slots=True)
class Membership:
    """A person's membership in one audience, as the ledger has it."""

    audience: str
    attribute: str
    side: ListSide


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

    people: Sequence[ReachedPerson]
    about: int


def read_reached(client: Redis, partitions: Sequence[PartitionKeys], *, until_ms: int) -> Reached:
    """Return the people whose last delivery is not later than `until_ms`.

    Of a partition with many people Redis keeps those with the smallest digests. Over all
    partitions those up to the smallest of these bounds are an even sample.
    """
    found: list[ReachedPerson] = []
    bounds = [_LARGEST]
    for partition in partitions:
        rows: Any = client.hgetall(partition.who)
        if len(rows) >= REACHED_KEPT:
            bounds.append(max(rows).decode())
        for digest, text in rows.items():
            person = ReachedPerson.loads(partition, digest, text)
            if person.at_ms <= until_ms and person.who:
                found.append(person)
    bound = min(bounds)
    people = [one for one in found if one.digest.hex() <= bound]
    return Reached(people, round(len(people) * int(_LARGEST, 16) / max(1, int(bound, 16))))


def sampled(
    everybody: Sequence[ReachedPerson], count: int, chance: random.Random
) -> list[ReachedPerson]:
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

    def verify(self, people: Sequence[ReachedPerson]) -> Iterator[Verified]:
        """Compare people; yield a result for each, and at last the differences seen twice."""
        suspects: list[ReachedPerson] = []
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

    def _compare(self, person: ReachedPerson) -> tuple[int, list[Difference]]:
        (record,) = read_records(self._client, person.partition, [person.digest])
        wanted = expected(self._names.lines(record), self._lists, until_us=self._until_us)
        if not wanted:
            return 0, []
        attributes = [membership.attribute for membership in wanted]
        found = read_lists(self._reader, person.who, attributes)
        differences = [
            Difference(
                person.partition.destination,
                person.digest.hex(),
                membership.audience,
                membership.attribute,
                membership.side,
                actual,
            )
            for membership in wanted
            if (actual := _actual(found, membership)) not in (membership.side, "")
        ]
        return len(wanted), differences


def _actual(found: ReadBack, membership: Membership) -> str:
    """Return "inside", "outside" or "unknown", as Insider has the person; "" = do not compare."""
    if found.attributes is None:
        return "unknown" if membership.side == "inside" else ""
    return "inside" if found.lists(membership.audience, membership.attribute) else "outside"


DEFAULT_SAMPLE: Final = 100
_SHOWN: Final = 100


def verify(
    *,
    sample: Annotated[
        int, typer.Option(help="How many people to read back.", min=1)
    ] = DEFAULT_SAMPLE,
    destination: DestinationName = "",
    older_than: Annotated[
        str, typer.Option(help="Only what was delivered longer ago: Insider shows a write late.")
    ] = "30m",
    again_after: Annotated[
        str, typer.Option(help="Read a difference again after this time.")
    ] = "10s",
    relay: Reads,
) -> Result:
    """Read people back from Insider, and compare their audiences with the ledger.

    They are chosen at random from everybody to whom something was delivered; where these are many,
    from an even sample of them. The exit code is 1 if something differs. At most 900 people are
    read a minute.
    """
    older_ms = round(1000 * parse_seconds(older_than, "--older-than"))
    again_seconds = parse_seconds(again_after, "--again-after")
    client, settings = relay.client, relay.settings
    until_ms = now_ms(client) - older_ms
    total = Verified()
    candidates = about = 0
    for one in _destinations(settings, destination):
        partitions = all_partitions(client, settings, [one.name])
        reached = read_reached(client, partitions, until_ms=until_ms)
        candidates += len(reached.people)
        about += reached.about
        people = sampled(reached.people, sample, random.SystemRandom())
        with progress(f"read back from {one.name}", len(people)) as shown:
            steps = _verified(
                client, settings, one, people, until_ms=until_ms, again_seconds=again_seconds
            )
            for step in steps:
                total.add(step)
                shown(step.profiles)
    return _result(total, candidates, about, older_than)


def _destinations(settings: Settings, name: str) -> list[Destination]:
    found = [
        destination
        for destination in settings.destinations.values()
        if destination.api == "insider" and name in ("", destination.name)
    ]
    if not found:
        raise UsageWrong(
            f"There is no destination '{name}' of Insider's API."
            if name
            else "No destination is of Insider's API: there is nothing to read back."
        )
    return found


def lists_of(settings: Settings, destination: str) -> dict[str, str]:
    """Return the attribute in which each trigger of a destination lists audiences."""
    return {one.name: list_of(settings, one) for one in settings.triggers_of(destination)}


def _verified(
    client: Redis,
    settings: Settings,
    destination: Destination,
    people: Sequence[ReachedPerson],
    *,
    until_ms: int,
    again_seconds: float,
) -> Iterator[Verified]:
    if not people:
        return
    lists = lists_of(settings, destination.name)
    with InsiderReader(settings, destination) as reader:
        verifier = Verifier(
            client, reader, lists, until_us=1000 * until_ms, again_seconds=again_seconds
        )
        yield from verifier.verify(people)


@dataclass(frozen=True, slots=True)
class HeldPerson:
    """A person as Insider has them, compared with the ledger.

    Args:
        attributes: By their names there; None = Insider does not know the person.
        lists: The names of the attributes that are lists of audiences.
    """

    verified: Verified
    attributes: Mapping[str, Any] | None
    lists: frozenset[str]


def verify_person(
    client: Redis, settings: Settings, digest: bytes, number: int
) -> dict[str, HeldPerson | None]:
    """Read one person at each destination of Insider's API; None = nothing is remembered there.

    The attributes are those that the samples of the triggers send. Insider may show a write late,
    so a difference of the last half hour need not be one.
    """
    until_us = 1_000 * now_ms(client)
    found: dict[str, HeldPerson | None] = {}
    for destination in _destinations(settings, ""):
        partition = PartitionKeys(destination.name, number)
        text: Any = client.hget(partition.who, digest.hex())
        who = orjson.loads(PROTECTION.unseal(text, digest.hex().encode()))[1] if text else None
        found[destination.name] = None
        if who:
            with InsiderReader(settings, destination) as reader:
                found[destination.name] = _held(
                    client, reader, ReachedPerson(partition, digest, who), settings, until_us
                )
    return found


def _held(
    client: Redis,
    reader: InsiderReader,
    person: ReachedPerson,
    settings: Settings,
    until_us: int,
) -> HeldPerson:
    triggers = settings.triggers_of(person.partition.destination)
    lists = lists_of(settings, person.partition.destination)
    names = frozenset(CUSTOM + each for each in lists.values() if each)
    sent = frozenset(name for trigger in triggers for name in sample_attributes(settings, trigger))
    verifier = Verifier(client, reader, lists, until_us=until_us, again_seconds=0.0)
    total = Verified()
    for step in verifier.verify([person]):
        total.add(step)
    return HeldPerson(total, reader.profile(person.who, sorted(names | sent)), names)


def _result(total: Verified, candidates: int, about: int, older_than: str) -> Result:
    count = len(total.differences)
    text: list[str | Table] = []
    text.append(
        f"{total.profiles:,} of {plural(about, 'person', 'people')} read back,"
        f" {plural(total.memberships, 'membership')} compared, {count:,} differ"
    )
    if count:
        columns: TableColumns = (
            "profile",
            "audience",
            "attribute",
            *text_columns("expected", "found"),
        )
        rows = [
            (d.destination, d.profile, d.audience, d.attribute, d.expected, d.found)
            for d in total.differences[:_SHOWN]
        ]
        text.append(Table(("destination", *columns), rows))
    return Result(
        {
            "people": about,
            "candidates": candidates,
            "candidates_are": "everybody" if candidates == about else "an even sample",
            "profiles": total.profiles,
            "memberships": total.memberships,
            "differences": [asdict(difference) for difference in total.differences],
        },
        *text,
        notes=_notes(total, candidates, about, older_than),
        exit_code=1 if count else 0,
    )


def _notes(total: Verified, candidates: int, about: int, older_than: str) -> Iterator[str]:
    if not candidates:
        yield f"There is nobody to whom the last delivery was made longer ago than {older_than}."
    elif candidates < about:
        yield f"They were chosen from an even sample: {candidates:,} of about {about:,} people."
    if total.differences:
        yield "`segrelay why PROFILE` tells all that is known of one of them."
        yield (
            "A list that stays empty for everybody: is the attribute defined in Insider's panel?"
            " `segrelay config check --live` tells."
        )

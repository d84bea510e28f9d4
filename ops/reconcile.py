"""`segrelay reconcile`: compare an audience at Lytics with the ledger and with Insider.

It reads the source, compares, reads back from Insider, and repairs if asked. What the ledger knows
to be newer than the scan is no drift: it has changed since.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal

import orjson
import typer

from segrelay.ops.audiences.membership import Advance, Person, named_in, remembered, standings
from segrelay.ops.audiences.renaming import check_wanted, publish_all, state_event
from segrelay.ops.insider.live_check import list_of, read_lists
from segrelay.ops.insider.reader import InsiderReader, ProfileReader
from segrelay.ops.state.acts import Asks, Doing, perform
from segrelay.ops.state.partitions import ask_each
from segrelay.ops.terminal.console import Progress, progress
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.tables import number_columns
from segrelay.producer.lytics import PREFIX, find_slug, look_at, lytics_of
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.audiences import named_audience
from segrelay.producer.sync.comparing import LedgerComparison
from segrelay.producer.sync.sources import LyticsSource
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.keys import partition_of
from segrelay.worker.contract.ledger import LastDelivered
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import RedisSettings, Settings
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import UsageWrong

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
        triggers: A pair: the destination wants entrances, and it wants exits.
    """

    destination: str
    triggers: LedgerComparison
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
        ledger,
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
    """Choose `count` people of the source and `count` stale ones; True = the source has them.

    People whom no trigger of the destination could repair are left out.
    """
    inside = [(person, True) for person in source.values() if compared.triggers.enters]
    outside = [(person, False) for person in compared.named_stale if compared.triggers.exits]
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
    redis: RedisSettings,
    audience: str,
    attribute: str,
) -> Iterator[SampleResult]:
    """Read a sample back and compare it with the source; yield the result of each person."""
    known = _known_as(client, redis, destination, [person for person, _ in sample])
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
    client: Redis, redis: RedisSettings, destination: str, people: Sequence[Person]
) -> dict[bytes, dict[str, Any]]:
    """Return the identifiers with which these people were last sent, as Redis remembers them."""
    known: dict[bytes, dict[str, Any]] = {}
    for first in range(0, len(people), _PEOPLE_A_CALL):
        part = people[first : first + _PEOPLE_A_CALL]
        answers = ask_each(
            client,
            part,
            lambda pipe, person: pipe.hget(
                redis.ids.partition(destination, partition_of(person.key, redis.partitions)).who,
                person.digest.hex(),
            ),
        )
        for person, text in zip(part, answers, strict=True):
            digest = person.digest.hex().encode()
            who = orjson.loads(PROTECTION.unseal(text, digest))[1] if text else None
            if who:
                known[person.digest] = who
    return known


Show = Callable[[str, int | None], AbstractContextManager[Progress]]
"""A function that opens a progress display, from a label and the total (None = unknown)."""


@dataclass(frozen=True, slots=True)
class AudienceSource:
    """The members of an audience at Lytics.

    Args:
        scan_us: The beginning of the scan, by the clock of Lytics.
    """

    scan_us: int
    members: Mapping[bytes, Person]


RepairEvent = tuple[Event, bool]
"""An event that repairs a difference, and whether the ledger has it as delivered already."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Finds and repairs the differences of one audience.

    Args:
        name: The slug or id with which Lytics is asked.
    """

    client: Redis
    settings: Settings
    publisher: Publisher
    name: str
    slug: str
    show: Show

    def read_source(self) -> AudienceSource:
        """Scan the audience at Lytics for its members."""
        at_us, members = look_at(self.settings, self.name, self.publisher.now_us())
        found: dict[bytes, Person] = {}
        with self.show("members at Lytics", members or None) as shown:
            for person in named_in(self.settings, [PREFIX + self.name]):
                found[person.digest] = person
                shown.advance()
        return AudienceSource(at_us, found)

    def compare(self, source: AudienceSource, people: Sequence[str]) -> list[AudienceComparison]:
        """Compare the source with the ledger of every destination that wants the audience.

        People who may be stale come from the syncs, and from `people`.
        """
        destinations = sorted(
            {
                trigger.destination
                for direction in (Direction.ENTER, Direction.EXIT)
                for trigger in self.publisher.triggers_for(self.slug, direction)
            }
        )
        if not destinations:
            raise UsageWrong(f"No trigger wants the audience '{self.slug}'.")
        with self.show("ledgers read", None) as shown:
            found = compare(
                self.client,
                self.settings,
                self.slug,
                {
                    name: LedgerComparison.of(self.publisher, name, self.slug, source.scan_us)
                    for name in destinations
                },
                source.members,
                advance=shown.advance,
            )
        known = list(remembered(self.client, self.settings, self.slug))
        members = [person for person in known if person.as_of_us]
        members += named_in(self.settings, people)
        return [with_names(each, members, known, source.members) for each in found]

    def read_back(
        self, compared: AudienceComparison, source: AudienceSource, count: int
    ) -> SampleResult:
        """Read a sample back from Insider: people of the source, and people who are stale."""
        total = SampleResult()
        destination = self.settings.destinations[compared.destination]
        attribute = self._attribute(destination.name)
        chosen = sampled(compared, source.members, count, random.SystemRandom())
        with (
            InsiderReader(self.settings, destination) as reader,
            self.show(f"read back from {destination.name}", len(chosen)) as shown,
        ):
            steps = read_back(
                self.client,
                reader,
                chosen,
                destination=destination.name,
                redis=self.settings.redis,
                audience=self.slug,
                attribute=attribute,
            )
            for step in steps:
                total.add(step)
                shown.advance()
        return total

    def _attribute(self, destination: str) -> str:
        """Return the attribute in which a destination lists the audience."""
        triggers = self.settings.triggers_of(destination)
        for trigger in sorted(triggers, key=lambda one: one.on != "enter"):
            attribute = list_of(self.settings, trigger) if trigger.wants(self.slug) else ""
            if attribute:
                return attribute
        raise UsageWrong(f"No trigger of '{destination}' keeps '{self.slug}' in a list.")

    def repairs(
        self,
        source: AudienceSource,
        found: Sequence[AudienceComparison],
        at_insider: Iterable[SampleResult],
    ) -> list[RepairEvent]:
        """Return the events that repair the differences; stale people are looked up once more."""
        entering = {one.key: (one, False) for each in found for one in each.missing}
        leaving = {one.key: (one, False) for each in found for one in each.named_stale}
        for read in at_insider:
            for kind, one in read.wrong:
                (entering if kind == "missing" else leaving)[one.key] = (one, True)
        at_us = source.scan_us
        moving = [(Direction.ENTER, *each) for each in entering.values()]
        moving += [(Direction.EXIT, *each) for each in self._really_gone(leaving.values())]
        return [(state_event(one, self.slug, way, at_us), again) for way, one, again in moving]

    def _really_gone(self, leaving: Iterable[tuple[Person, bool]]) -> Iterator[tuple[Person, bool]]:
        lytics = LyticsSource(
            lytics_of(self.settings),
            name=self.name,
            slug=self.slug,
            identity=self.settings.delivery.identity,
            fields=(),
        )
        with lytics:
            for person, again in leaving:
                if not lytics.look(person.key).is_member:
                    yield person, again

    def check_wanted(self, repairs: Sequence[RepairEvent]) -> None:
        """Refuse repairs that no trigger would deliver."""
        for direction in {event.direction for event, _ in repairs}:
            check_wanted(self.publisher, self.slug, direction)

    def publish(self, repairs: Sequence[RepairEvent]) -> int:
        """Publish repairs; return their number."""
        done = 0
        with self.show("published", len(repairs)) as shown:
            for again in (False, True):
                events = [event for event, is_again in repairs if is_again == again]
                for step in publish_all(self.publisher, events, again=again):
                    done += step
                    shown.advance(step)
        return done


DEFAULT_SAMPLE: Final = 100


def reconcile(
    audience: Annotated[str, typer.Argument(metavar="AUDIENCE", help="Slug or id at Lytics.")],
    *,
    insider: Annotated[
        bool, typer.Option("--insider", help="Read a sample back from Insider too.")
    ] = False,
    sample: Annotated[
        int, typer.Option(help="How many people, of each kind, --insider reads.", min=1)
    ] = DEFAULT_SAMPLE,
    repair: Annotated[
        bool, typer.Option("--repair", help="Publish what is missing and what is stale.")
    ] = False,
    people: Annotated[
        list[str] | None,
        typer.Option(
            "--people", metavar="SOURCE", help="Who may be stale: lytics:SLUG, or a file."
        ),
    ] = None,
    relay: Asks,
) -> Result:
    """Compare who is in an audience at Lytics with what was delivered.

    "missing" are people whom Lytics has in the audience and the ledger has not, "stale" the other
    way round. So are people whom a sync or --people names, and of whom neither knows. What waits is
    not in the ledger yet. Who is stale is looked up at Lytics once more before --repair publishes
    the exit. People of whom an event is newer than the scan are neither missing nor stale; how many
    of them differ is said, and is "changed_since_scan" of --json. The exit code is 1 if there is a
    difference that was not repaired.
    """
    client, settings = relay.client, relay.settings
    publisher = Publisher(client, settings)
    slug, _ = named_audience(
        publisher.audiences, audience, look_up=lambda name: find_slug(settings, name)
    )
    drift = Drift(client, settings, publisher, audience, slug, progress)
    source = drift.read_source()
    found = drift.compare(source, people or ())
    at_insider = {
        each.destination: drift.read_back(each, source, sample)
        for each in found
        if insider and settings.destinations[each.destination].api == "insider"
    }
    repaired = 0
    if repair:
        repairs = drift.repairs(source, found, at_insider.values())
        repaired = _repaired(relay, drift, repairs)
    documents = [_document(each, at_insider.get(each.destination)) for each in found]
    told = {"audience": slug, "source": len(source.members), "destinations": documents}
    differs = any(_differs(document) for document in documents)
    return Result(
        {**told, "repaired": repaired},
        *_text(documents, repaired if repair else None),
        notes=_notes(slug, documents),
        exit_code=1 if differs and not repair else 0,
    )


def _repaired(relay: Asks, drift: Drift, repairs: Sequence[RepairEvent]) -> int:
    if not repairs:
        return 0
    drift.check_wanted(repairs)
    enters = sum(event.direction is Direction.ENTER for event, _ in repairs)
    exits = len(repairs) - enters
    relay.confirm(
        f"Publish {plural(enters, 'entrance')} and {plural(exits, 'exit')} of '{drift.slug}'?"
    )

    def publish(doing: Doing) -> int:
        doing.count = drift.publish(repairs)
        return doing.count

    return perform(relay.client, relay.act(drift.slug), publish)


def _document(compared: AudienceComparison, read: SampleResult | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "destination": compared.destination,
        "ledger": compared.ledger,
        "both": compared.both,
        "missing": len(compared.missing),
        "stale": len(compared.stale),
        "stale_unnamed": len(compared.stale) - len(compared.named_stale),
        "changed_since_scan": compared.changed,
    }
    if read is not None:
        document["insider"] = {
            "read": read.read,
            "missing": sum(kind == "missing" for kind, _ in read.wrong),
            "stale": sum(kind == "stale" for kind, _ in read.wrong),
            "unknown": read.unknown,
        }
    return document


def _differs(document: dict[str, Any]) -> bool:
    at_insider = document.get("insider", {})
    return bool(
        document["missing"]
        or document["stale"]
        or at_insider.get("missing")
        or at_insider.get("stale")
    )


def _text(documents: Sequence[dict[str, Any]], repaired: int | None) -> Iterator[str | Table]:
    yield Table(
        ("destination", *number_columns("in both", "missing", "stale")),
        [(each["destination"], each["both"], each["missing"], each["stale"]) for each in documents],
    )
    for each in documents:
        if "insider" in each:
            read = each["insider"]
            yield (
                f"{each['destination']}: {read['read']:,} people read back,"
                f" {read['missing']:,} are missing at Insider, {read['stale']:,} are stale there"
            )
    if repaired is not None:
        yield f"{plural(repaired, 'event')} published"


def _notes(slug: str, documents: Sequence[dict[str, Any]]) -> Iterator[str]:
    for each in documents:
        if each["stale_unnamed"]:
            yield (
                f"{each['stale_unnamed']:,} stale people of '{slug}' are known by a digest only:"
                " --people says who they are."
            )
        if each["changed_since_scan"]:
            yield (
                f"{each['destination']}: {each['changed_since_scan']:,} people of '{slug}' differ,"
                " but an event about them is newer than the scan: they were neither counted nor"
                " repaired. Compare again in a minute to see whether they still differ."
            )

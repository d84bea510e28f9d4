"""`segrelay verify`: compare the memberships that Insider holds with those in the ledger.

It is the proof against silent drops: Insider answers 200 and writes nothing where an attribute is
not defined in its panel. A difference is read again after a moment, ledger and profile, before it
counts: both change while work goes on.

With `verify_every` a worker reads some people back on a schedule. It imports this module by its
name (`TASKS_MODULES` of `segrelay.worker.contract.celery`).
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import orjson
import structlog
import typer
from celery import shared_task

from segrelay.ops.insider import (
    InsiderReader,
    InsiderUnreadable,
    list_of,
    lists_audience,
    sample_attributes,
)
from segrelay.ops.state.background import VerifyState
from segrelay.ops.state.opened import Reads
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.person import LedgerLine, Names, read_records
from segrelay.ops.terminal.console import progress
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import parse_seconds
from segrelay.ops.terminal.options import DestinationName
from segrelay.ops.terminal.tables import TableColumns, text_columns
from segrelay.producer.steps import Step, StepStore
from segrelay.producer.tasks import client_of, do_background_job
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import VERIFY_TASK, BackgroundJob, ResultLine, Turn, Turns
from segrelay.worker.contract.keys import DIGEST_BYTES, REACHED_KEPT, PartitionKeys
from segrelay.worker.contract.ledger import is_newer
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.settings import Destination, Settings
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.insider.api import CUSTOM
from segrelay.worker.errors import OperationsMustAct, SegrelayError, UsageWrong

ListSide = Literal["inside", "outside"]

LOG: Final = structlog.get_logger()
_LARGEST: Final = "f" * 2 * DIGEST_BYTES
"""The largest digest, in hex."""


class ReachedPerson(NamedTuple):
    """A person to whom something was delivered.

    Redis has them in `PartitionKeys.who` as `[at_ms, who]`.

    Attributes:
        who: The person's `identifiers` or `insider_id`, as they were sent.
        at_ms: The time of the last delivery, by Redis' clock.
    """

    partition: PartitionKeys
    digest: bytes
    who: Mapping[str, Any]
    at_ms: int

    @classmethod
    def loads(cls, partition: PartitionKeys, digest: bytes, text: bytes) -> Self:
        """Read a person from the hash, where the digest is written in hex."""
        at_ms, who = orjson.loads(PROTECTION.unseal(text, digest))
        return cls(partition, bytes.fromhex(digest.decode()), who, at_ms)


class Membership(NamedTuple):
    """A person's membership in one audience, as the ledger has it.

    Attributes:
        found: The side at Insider; `unknown` = it does not know the profile, "" = do not compare.
    """

    audience: str
    attribute: str
    expected: ListSide
    found: str = ""

    @property
    def differs(self) -> bool:
        """Say whether Insider does not hold the membership as the ledger says."""
        return self.found not in (self.expected, "")


@dataclass(slots=True)
class Verified:
    """The numbers of compared profiles and memberships, and the differences with their people."""

    profiles: int = 0
    memberships: int = 0
    differences: list[tuple[ReachedPerson, Membership]] = field(default_factory=list)


def read_reached(
    client: Redis, settings: Settings, destination: str, until_ms: int
) -> tuple[list[ReachedPerson], int]:
    """Return the people whose last delivery is not later than `until_ms`, and how many there are.

    Of a partition with many people Redis keeps those with the smallest digests. Over all
    partitions those up to the smallest of these bounds are an even sample, and the number of all
    people is estimated.
    """
    found: list[ReachedPerson] = []
    bounds = [_LARGEST]
    for partition in all_partitions(client, settings, [destination]):
        rows: Any = client.hgetall(partition.who)
        if len(rows) >= REACHED_KEPT:
            bounds.append(max(rows).decode())
        found += (ReachedPerson.loads(partition, digest, text) for digest, text in rows.items())
    bound = min(bounds)
    people = [
        one for one in found if one.at_ms <= until_ms and one.who and one.digest.hex() <= bound
    ]
    return people, round(len(people) * int(_LARGEST, 16) / max(1, int(bound, 16)))


def expected(
    lines: Iterable[LedgerLine], lists: Mapping[str, str], *, until_us: int
) -> Iterator[Membership]:
    """Yield the memberships of which the ledger is sure, in audiences with a list at Insider.

    Args:
        lines: The ledger's lines of one profile.
        lists: The attribute by trigger; triggers without one keep no list.
        until_us: The time (µs) behind which events may not be written at Insider yet.
    """
    groups: defaultdict[tuple[str, str], list[LedgerLine]] = defaultdict(list)
    for line in lines:
        attribute = lists.get(line.trigger, "")
        if attribute and line.direction is not Direction.CHANGE:
            groups[line.audience, attribute].append(line)
    for (audience, attribute), group in groups.items():
        at_us, direction = 0, Direction.EXIT
        for line in group:
            if line.delivered_us and is_newer(line.delivered_us, line.direction, at_us, direction):
                at_us, direction = line.delivered_us, line.direction
        is_sure = all(line.tried_us < at_us for line in group if line.tried_us)
        if at_us and at_us <= until_us and is_sure:
            side: ListSide = "inside" if direction is Direction.ENTER else "outside"
            yield Membership(audience, attribute, side)


def compare(
    client: Redis,
    settings: Settings,
    reader: InsiderReader,
    people: Sequence[ReachedPerson],
    *,
    until_ms: int,
    again_seconds: float,
    shown: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Compare people with what Insider holds; a difference counts if it is seen twice.

    Args:
        client: Redis.
        settings: The configuration.
        reader: The reader of the destination of all these people.
        people: The people to compare.
        until_ms: The time (ms) behind which deliveries are left out: Insider may not show them yet.
        again_seconds: The time after which a difference is read again.
        shown: A function that is called with 1 for each person who was read.
    """
    names, lists = Names(client), lists_of(settings, reader.name)

    def read(person: ReachedPerson) -> list[Membership]:
        (record,) = read_records(client, person.partition, [person.digest])
        wanted = list(expected(names.lines(record), lists, until_us=1_000 * until_ms))
        if not wanted:
            return []
        held = reader.profile(person.who, sorted({CUSTOM + one.attribute for one in wanted}))
        return [one._replace(found=_found(held, one)) for one in wanted]

    total, suspects = Verified(), list[ReachedPerson]()
    for person in people:
        memberships = read(person)
        total.profiles += 1
        total.memberships += len(memberships)
        suspects += [person] if any(one.differs for one in memberships) else []
        shown(1)
    if suspects:
        time.sleep(again_seconds)
    total.differences = [
        (person, one) for person in suspects for one in read(person) if one.differs
    ]
    return total


def _found(held: Mapping[str, Any] | None, membership: Membership) -> str:
    if held is None:
        return "unknown" if membership.expected == "inside" else ""
    return "inside" if lists_audience(held, *membership[:2]) else "outside"


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
    from an even sample of them. The exit code is 1 if something differs. At most 360 people are
    read a minute.
    """
    older_ms = round(1000 * parse_seconds(older_than, "--older-than"))
    again_seconds = parse_seconds(again_after, "--again-after")
    client, settings = relay.client, relay.settings
    until_ms = now_ms(client) - older_ms
    people: list[ReachedPerson] = []
    total = Verified()
    candidates = about = 0
    for one in _destinations(settings, destination):
        reached, count = read_reached(client, settings, one.name, until_ms)
        candidates += len(reached)
        about += count
        people = _sampled(reached, sample)
        with progress(f"read back from {one.name}", len(people)) as shown:
            if people:
                with InsiderReader(settings, one) as reader:
                    found = compare(
                        client, settings, reader, people,
                        until_ms=until_ms, again_seconds=again_seconds, shown=shown,
                    )  # fmt: skip
                total.profiles += found.profiles
                total.memberships += found.memberships
                total.differences += found.differences
    return _result(total, candidates, about, older_than)


def _sampled(people: Sequence[ReachedPerson], count: int) -> list[ReachedPerson]:
    return random.SystemRandom().sample(people, min(count, len(people)))


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


class HeldPerson(NamedTuple):
    """A person as Insider has them, compared with the ledger.

    Attributes:
        attributes: The attributes by their names at Insider; None = Insider does not know the
            person.
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
    until_ms = now_ms(client)
    held: dict[str, HeldPerson | None] = {}
    for destination in _destinations(settings, ""):
        partition = PartitionKeys(destination.name, number)
        text: Any = client.hget(partition.who, digest.hex())
        person = ReachedPerson.loads(partition, digest.hex().encode(), text) if text else None
        held[destination.name] = None
        if person and person.who:
            triggers = settings.triggers_of(destination.name)
            lists = frozenset(
                CUSTOM + each for each in lists_of(settings, destination.name).values() if each
            )
            sent = {name for one in triggers for name in sample_attributes(settings, one)}
            with InsiderReader(settings, destination) as reader:
                found = compare(
                    client, settings, reader, [person], until_ms=until_ms, again_seconds=0.0
                )
                attributes = reader.profile(person.who, sorted(lists | sent))
            held[destination.name] = HeldPerson(found, attributes, lists)
    return held


def _result(total: Verified, candidates: int, about: int, older_than: str) -> Result:
    count = len(total.differences)
    told = (
        f"{total.profiles:,} of {plural(about, 'person', 'people')} read back,"
        f" {plural(total.memberships, 'membership')} compared, {count:,} differ"
    )
    text: list[str | Table] = [told]
    if count:
        columns: TableColumns = (
            "profile",
            "audience",
            "attribute",
            *text_columns("expected", "found"),
        )
        rows = [
            (person.partition.destination, person.digest.hex(), *one)
            for person, one in total.differences[:_SHOWN]
        ]
        text.append(Table(("destination", *columns), rows))
    return Result(
        {
            "people": about,
            "candidates": candidates,
            "candidates_are": "everybody" if candidates == about else "an even sample",
            "profiles": total.profiles,
            "memberships": total.memberships,
            "differences": [
                {"destination": person.partition.destination, "profile": person.digest.hex()}
                | one._asdict()
                for person, one in total.differences
            ],
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


PEOPLE: Final = 20
"""The people whom a step reads: it takes some seconds, and Insider's quota is for others, too."""
LONGEST_SLEEP_SECONDS: Final = 2.0


def scheduled_step(
    client: Redis,
    settings: Settings,
    destination: str,
    *,
    older_ms: int = 1_800_000,
    again_seconds: float = 2.0,
) -> Step:
    """Compare some people of a destination, keep the result, and set the time of the next step.

    Args:
        client: Redis.
        settings: The configuration.
        destination: The name of the destination.
        older_ms: The age of a delivery from which Insider shows it for sure.
        again_seconds: The time after which a difference is read again.
    """
    store = StepStore(client, keys.verify(destination), f"verify '{destination}'", VerifyState)
    known = settings.destinations[destination]

    def work(state: VerifyState, at_ms: int) -> Step:
        until_ms = at_ms - older_ms
        people = _sampled(read_reached(client, settings, destination, until_ms)[0], PEOPLE)
        try:
            with InsiderReader(settings, known, sleep=_short_sleep) as reader:
                found = compare(
                    client, settings, reader, people, until_ms=until_ms, again_seconds=again_seconds
                )
            state = VerifyState(at_ms, found.profiles, len(found.differences))
            line = f"{plural(found.profiles, 'person', 'people')} read, {state.differences} differ"
        except OperationsMustAct as error:
            state.failures, state.problem = state.failures + 1, error.message
            line = error.message
            LOG.warning("verify.failed", destination=destination, reason=line)
        wait = known.verify_every_seconds
        store.save(state, next_ms=at_ms + round(1_000 * wait), ends=True)
        return Step(line, wait_seconds=wait)

    return store.step(work)


def _short_sleep(seconds: float) -> None:
    """Wait for the reader's pace only: where Insider's quota is used up, the step ends."""
    if seconds > LONGEST_SLEEP_SECONDS:
        raise InsiderUnreadable("Insider's quota for reading is used up at the moment.")


@shared_task(name=VERIFY_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def verify_some(self: Any, destination: str) -> ResultLine:
    """Compare some people of a destination with the ledger."""
    job = BackgroundJob(VERIFY_TASK, destination)
    return do_background_job(self.app.segrelay, job, _step)


def _step(node: Turns, destination: str, _turn: Turn) -> Step:
    return scheduled_step(client_of(node), node.settings, destination)

"""`segrelay audience`: list and retire audiences, and set the slugs of ids.

Members are counted from the ledger, which has only digests, and an exit needs a profile. People are
known by name from the members that a sync remembers, and from entrances that wait. Whom a file or a
scan names leaves by a backfill of exits.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Annotated, Any, Final, NamedTuple, cast

import orjson
import typer

from segrelay.ops.state.opened import Acts, Asks, Doing, Reads, insist, perform
from segrelay.ops.state.partitions import all_partitions, ask_each
from segrelay.ops.state.person import Names
from segrelay.ops.state.waiting import find_streams, read_entries
from segrelay.ops.terminal.console import progress
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.tables import TableColumns, number_columns, text_columns
from segrelay.producer.events.payloads import (
    ID,
    PAYLOAD_ID,
    SEGMENT_EVENTS,
    format_time,
    profile_key,
)
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.events import Event, decode_profile
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys, digest_of
from segrelay.worker.contract.ledger import Record, standing, unpack_all
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.acts import carry_out
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import scan_keys
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import ALL_AUDIENCES
from segrelay.worker.contract.words import BACKFILL, Direction
from segrelay.worker.errors import PayloadRefused, UsageWrong

_PATTERN: Final = "l" + DIGEST_BYTES * "?"
_KEY: Final = re.compile(rb"\{([a-z0-9~-]+):(\d+)\}l(.{%d})" % DIGEST_BYTES, re.DOTALL)

Advance = Callable[[int], None]
"""A callback that takes the number of keys that were read."""

FoundRecord = tuple[PartitionKeys, bytes, Record | None]
"""The partition, the digest and the record of a profile; None where it can't be read."""

AudienceCounts = Counter[tuple[str, str, str]]
"""By slug, destination and newest direction the number of people; ("", "", "") has the number of
records that can't be read."""

_EVENTS_A_CALL: Final = 1_000
_LOOK_SECONDS: Final = 0.5


def _records(client: Redis, settings: Settings, advance: Advance) -> Iterator[FoundRecord]:
    # A key of another kind may look like a ledger's, but is no string.
    for names in scan_keys(client, all_partitions(client, settings), _PATTERN, "string"):
        texts = ask_each(client, names, lambda pipe, name: pipe.get(name))
        known = {name: text for name, text in zip(names, texts, strict=True) if text}
        records, _ = unpack_all(known)
        for name in known:
            if match := _KEY.fullmatch(name):
                partition = PartitionKeys(match[1].decode(), int(match[2]))
                yield partition, match[3], records.get(name)
        advance(len(names))


def count_all(
    client: Redis, settings: Settings, advance: Advance = lambda _: None
) -> AudienceCounts:
    """Count the members of all audiences."""
    names = Names(client)
    counts = AudienceCounts()
    for partition, _, record in _records(client, settings, advance):
        if record is None:
            counts["", "", ""] += 1
            continue
        for audience in {key[0] for key in record.items if key[0]}:
            if now := standing(record, audience):
                counts[names.audience(audience), partition.destination, now[0].value] += 1
    return counts


def held_by(
    client: Redis, settings: Settings, audience: str, destinations: Container[str], advance: Advance
) -> set[bytes]:
    """Return the digests of an audience's members by the ledgers of destinations.

    Who enters or leaves meanwhile may be missing, or still there.
    """
    number = Names(client).number_of(audience)
    found: set[bytes] = set()
    for partition, digest, record in _records(client, settings, advance):
        now = standing(record, number) if record and number else None
        if now and now[0] is Direction.ENTER and partition.destination in destinations:
            found.add(digest)
    return found


def known_ids(client: Redis) -> dict[str, str]:
    """Return the slug that each id stands for."""
    answer = cast("Mapping[bytes, bytes]", client.hgetall(keys.AUDIENCES))
    return {key.decode(): value.decode() for key, value in answer.items()}


def row_of(
    settings: Settings, slug: str, known: Mapping[str, str], counts: AudienceCounts
) -> dict[str, Any]:
    """Return the row of one audience, as `audience list --json` prints it."""
    ids = sorted(audience_id for audience_id, stands_for in known.items() if stands_for == slug)
    return {
        "slug": slug,
        "ids": ids,
        "triggers": [
            trigger.name
            for trigger in settings.triggers.values()
            if any(trigger.wants(name) for name in (slug, *ids))
        ],
        "syncs": [
            schedule.name
            for schedule in settings.sync.values()
            if schedule.audience in (slug, *ids)
        ],
        "destinations": {
            destination: {
                "members": counts[slug, destination, Direction.ENTER],
                "left": counts[slug, destination, Direction.EXIT],
            }
            for destination in sorted({at for audience, at, _ in counts if audience == slug})
        },
    }


class Person(NamedTuple):
    """The key of a profile, of which the ledger holds only the digest, and the profile.

    Of a sync's member the profile is the identity alone.
    """

    key: str
    profile: dict[str, Any]


def remembered(client: Redis, settings: Settings, audience: str) -> Iterator[Person]:
    """Yield the people that syncs of an audience know by name."""
    for sync in settings.sync:
        store = SyncStore(client, sync, settings.redis)
        state = store.peek()
        if state.audience == audience:
            for partition in store.partitions(state.known or state.destinations):
                for key, _ in store.members(partition):
                    name, _, value = key.partition(":")
                    yield Person(key, {PAYLOAD_ID if name == ID else name: value})


def waiting_in(client: Redis, settings: Settings, audience: str) -> Iterator[Person]:
    """Yield the people whose entrance into an audience waits to be delivered."""
    for stream in find_streams(client, all_partitions(client, settings)):
        for entry in read_entries(client, stream):
            header = entry.header
            if header and (header.audience, header.direction) == (audience, Direction.ENTER):
                with suppress(PayloadRefused, orjson.JSONDecodeError):
                    profile = orjson.loads(decode_profile(entry.profile))
                    yield Person(profile_key(profile, settings.delivery.identity), profile)


def by_digest(people: Iterable[Person]) -> dict[bytes, Person]:
    """Return people by digest, each with the profile that has most fields."""
    found: dict[bytes, Person] = {}
    for person in people:
        other = found.setdefault(digest_of(person.key), person)
        if len(person.profile) > len(other.profile):
            found[digest_of(person.key)] = person
    return found


def exit_event(person: Person, audience: str, time_us: int) -> Event:
    """Return an event that states that a person is not in an audience at a time."""
    entry: dict[str, Any] = {
        "slug": audience,
        "event": Direction.EXIT.value,
        Direction.EXIT.value: format_time(time_us),
    }
    profile = {**person.profile, SEGMENT_EVENTS: [entry]}
    return Event(person.key, audience, Direction.EXIT, time_us, profile, state=True, skip_hook=True)


def publish_all(publisher: Publisher, events: Iterable[Event]) -> Iterator[int]:
    """Publish events whenever the backfill lane has room; yield each portion's size.

    Raises:
        RedisUnavailable: It was away for too long. Some may be published; doing it again is safe.
    """
    remaining = iter(events)
    while part := list(islice(remaining, _EVENTS_A_CALL)):

        def publish(part: Sequence[Event] = part) -> None:
            while publisher.why_full(BACKFILL):
                time.sleep(_LOOK_SECONDS)
            publisher.publish(part, PublishOptions(BACKFILL))

        insist(publish)
        yield len(part)


app = typer.Typer(help="See or retire audiences, and say what ids stand for.")

_RETRY: Final = (
    "Programs that are sending now learn of it within a minute. What was refused stays in the"
    " quarantine until `segrelay quarantine replay --reason {kind}`."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The id, as payloads carry it.")]


@app.command("list")
def list_audiences(
    *,
    relay: Reads,
) -> Result:
    """List the audiences: ids, members by the ledger, triggers, syncs.

    Everybody's ledger is read for it. "left" are people whose newest event is an exit.
    """
    client, settings = relay.client, relay.settings
    with progress("ledgers read") as shown:
        counts = count_all(client, settings, shown)
    unreadable = counts.pop(("", "", ""), 0)
    known = known_ids(client)
    named = {name for each in settings.triggers.values() for name in each.audiences}
    named |= {schedule.audience for schedule in settings.sync.values()}
    found = {known.get(name, name) for name in named - {ALL_AUDIENCES}} | set(known.values())
    found |= {slug for slug, _, _ in counts}
    rows = [row_of(settings, slug, known, counts) for slug in sorted(found)]
    columns: TableColumns = (
        *text_columns("id"),
        *number_columns("members", "left"),
        *text_columns("triggers", "syncs"),
    )
    told = f"Another version wrote {plural(unreadable, 'ledger')}, which can't be read."
    return Result(
        {"audiences": rows, "unreadable": unreadable},
        Table(("slug", *columns), [cells for row in rows for cells in _cells(row)]),
        notes=[told] if unreadable else (),
    )


@app.command()
def retire(
    slug: Annotated[str, typer.Argument(help="The audience that everybody leaves.")],
    *,
    relay: Asks,
) -> Result:
    """Publish an exit for everybody who is in an audience by a sync, or whose entrance waits.

    The ledger knows people by a digest only: where somebody is in it whom no sync of the audience
    knows, the exit code is 1, and `segrelay backfill start SOURCE --audience SLUG --on exit` takes
    out whom a source names. The next run of a sync enters whoever is still in the audience at
    Lytics: take it out of the configuration then.
    """
    client, settings = relay.client, relay.settings
    publisher = Publisher(client, settings)
    destinations = {one.destination for one in publisher.triggers_for(slug, Direction.EXIT)}
    if not destinations:
        raise UsageWrong(
            f"No trigger wants the exit of audience '{slug}': name it in the audiences of a"
            ' trigger with on = "exit" until this is done.'
        )
    named = by_digest(remembered(client, settings, slug))
    leaving = plural(len(named), "person", "people")
    relay.confirm(f"Publish exits from '{slug}' for {leaving}, and for those whose entrance waits?")
    # Whoever enters after this moment is in; who entered before it is in the ledger, or waits.
    now_us = publisher.now_us()
    # What waits comes first: what is delivered meanwhile is in the ledger when that is read.
    leavers = by_digest(chain(named.values(), waiting_in(client, settings, slug)))
    with progress("ledgers read") as shown:
        held = held_by(client, settings, slug, destinations, shown)

    def leave(doing: Doing) -> None:
        doing.count = 0
        events = (exit_event(person, slug, now_us) for person in leavers.values())
        doing.counted("published", publish_all(publisher, events), len(leavers))

    perform(client, relay.act(slug), leave)
    known, published = len(held & leavers.keys()), len(leavers)
    syncs = [
        name
        for name in settings.sync
        if SyncStore(client, name, settings.redis).peek().audience == slug
    ]
    notes = []
    if len(held) > known:
        notes.append(
            f"Of {plural(len(held) - known, 'person', 'people')} only the digest is known, so"
            f" nothing is published: `segrelay backfill start SOURCE --audience {slug} --on exit"
            " --as-of now` takes out whom a source names, such as lytics:SLUG or a file."
        )
    if syncs:
        notes.append(
            f"The next run of a sync enters whoever is still in '{slug}' at Lytics: take"
            f" [sync.{'], [sync.'.join(syncs)}] out of the configuration now, and restart."
        )
    return Result(
        {
            "audience": slug,
            "held": len(held),
            "named": len(named),
            "known": known,
            "unknown": published - known,
            "published": published,
        },
        f"{plural(published, 'person', 'people')}: exits published",
        f"{len(held):,} were in it by the ledger, {known:,} of them named",
        notes=notes,
        exit_code=1 if len(held) > known else 0,
    )


@app.command("set")
def set_slug(
    audience_id: Id,
    slug: Annotated[str, typer.Argument(help="The slug that the id stands for from now on.")],
    *,
    relay: Acts,
) -> Result:
    """Set the slug that an id stands for; payloads that carry the id with another slug are refused.

    Nothing that was delivered under the slug until now is changed.
    """
    audience_id, slug = _word("The id", audience_id), _word("The slug", slug)
    client = relay.client
    was = known_ids(client).get(audience_id, "")
    act = relay.act(audience_id, to=slug, was=was)
    insist(lambda: carry_out(client, act, keys.AUDIENCES, "HSET", audience_id, slug))
    before = f", no longer for '{was}'" if was and was != slug else ""
    return Result(
        {"id": audience_id, "slug": slug, "was": was},
        f"{audience_id} stands for '{slug}'{before}.",
        notes=[_RETRY.format(kind="audience_conflict" if was else "unknown_audience")],
    )


def _cells(row: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """Yield a table row for each destination; one row if the ledger knows no destination."""
    ends = (", ".join(row["triggers"]) or "-", ", ".join(row["syncs"]) or "-")
    begins = (row["slug"], ", ".join(row["ids"]) or "-")
    if not row["destinations"]:
        yield (*begins, "-", "-", *ends)
    for name, found in row["destinations"].items():
        at = f" ({name})" if len(row["destinations"]) > 1 else ""
        yield (begins[0] + at, begins[1], found["members"], found["left"], *ends)


def _word(what: str, written: str) -> str:
    """Strip the spaces around a slug or an id, as payloads are read; refuse an empty one."""
    word = written.strip()
    if not word:
        raise UsageWrong(f"{what} is empty.")
    return word

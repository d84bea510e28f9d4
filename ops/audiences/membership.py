"""The members of audiences by the ledger, the rows of `audience list`, and the names of people.

The ledger has only digests, and an exit needs a profile. People are known by name from the members
that a sync remembers, and from the sources that an operator names: `lytics:SLUG`, or files as
backfills read them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, cast

import orjson

from segrelay.ops.state.partitions import all_partitions, ask_each
from segrelay.ops.state.person import Names
from segrelay.ops.state.waiting import find_streams, read_entries
from segrelay.ops.terminal.moments import shown_us
from segrelay.producer.events.values import ID, PAYLOAD_ID, profile_key
from segrelay.producer.lytics import audience_of, scan_rows
from segrelay.producer.sources.blocks import blocks_of
from segrelay.producer.sources.opening import opened
from segrelay.producer.sync.step import columns_of
from segrelay.producer.sync.store import Mark, SyncStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys, digest_of
from segrelay.worker.contract.ledger import LastDelivered, Record, standing, unpack_all
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scanning import ScanPart, read_keys, scan_parts, until_whole
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import ALL_AUDIENCES
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import PayloadRefused

_PATTERN: Final = "l" + DIGEST_BYTES * "?"
_KEY: Final = re.compile(rb"\{([a-z0-9~-]+):(\d+)\}l(.{%d})" % DIGEST_BYTES, re.DOTALL)

Advance = Callable[[int], None]
"""A callback that takes the number of keys that were read."""

FoundRecord = tuple[PartitionKeys, bytes, Record | None]
"""The partition, the digest and the record of a profile; None where it can't be read."""


@dataclass(slots=True)
class Count:
    """The members of one audience at one destination, counted from the ledger.

    Args:
        members: People whose newest event, by any trigger, is an entrance.
        entered: People who ever entered, as far back as the ledger goes.
        left: People whose newest event is an exit.
        last_us: The newest time that was delivered; 0 if none was.
    """

    members: int = 0
    entered: int = 0
    left: int = 0
    last_us: int = 0

    def add(self, other: Count) -> None:
        """Add the count of other people."""
        self.members += other.members
        self.entered += other.entered
        self.left += other.left
        self.last_us = max(self.last_us, other.last_us)


@dataclass(slots=True)
class AudienceCounts:
    """The counts of all audiences, by slug and destination.

    Args:
        unreadable: Records of another version, or damaged.
    """

    found: dict[tuple[str, str], Count] = field(default_factory=dict)
    unreadable: int = 0

    def add(self, other: AudienceCounts) -> None:
        """Add the counts of other people."""
        self.unreadable += other.unreadable
        for key, count in other.found.items():
            self.found.setdefault(key, Count()).add(count)


def every_record(
    client: Redis, settings: Settings, advance: Advance = lambda _: None
) -> Iterator[FoundRecord]:
    """Yield partition, digest and record of each profile; None for a record that can't be read.

    Some may come twice. What is delivered meanwhile may be missing.
    """
    for part in scan_parts(client, all_partitions(client, settings), _PATTERN):
        yield from until_whole(partial(_records, client, part, advance))


def _records(client: Redis, part: ScanPart, advance: Advance) -> Iterator[FoundRecord]:
    # A key of another kind may look like a ledger's, but is no string.
    for names in read_keys(client, part, "string"):
        yield from _read(client, names)
        advance(len(names))


def _read(client: Redis, names: list[bytes]) -> Iterator[FoundRecord]:
    texts = ask_each(client, names, lambda pipe, name: pipe.get(name))
    known = {name: text for name, text in zip(names, texts, strict=True) if text}
    records, _ = unpack_all(known)
    for name in known:
        match = _KEY.fullmatch(name)
        if match:
            partition = PartitionKeys(match[1].decode(), int(match[2]))
            yield partition, match[3], records.get(name)


def count_all(
    client: Redis, settings: Settings, advance: Advance = lambda _: None
) -> AudienceCounts:
    """Count the members of all audiences."""
    names = Names(client)
    counts = AudienceCounts()
    for part in scan_parts(client, all_partitions(client, settings), _PATTERN):
        for counted in until_whole(partial(_counted, client, part, names, advance)):
            counts.add(counted)
    return counts


def _counted(
    client: Redis, part: ScanPart, names: Names, advance: Advance
) -> Iterator[AudienceCounts]:
    """Yield the counts of one part of a scan once it was read whole: nobody is counted twice."""
    counts = AudienceCounts()
    for partition, _, record in _records(client, part, advance):
        if record is None:
            counts.unreadable += 1
            continue
        for audience in {key[0] for key in record.items if key[0]}:
            key = (names.audience(audience), partition.destination)
            _add(counts.found.setdefault(key, Count()), record, audience)
    yield counts


def _add(count: Count, record: Record, audience: int) -> None:
    now = standing(record, audience)
    if now is None:
        return
    direction, last_us = now
    count.last_us = max(count.last_us, last_us)
    count.members += direction is Direction.ENTER
    count.left += direction is Direction.EXIT
    count.entered += any(
        item.direction is Direction.ENTER and item.delivered_us
        for _, item in record.about(audience)
    )


def standings(
    client: Redis, settings: Settings, audience: str, advance: Advance = lambda _: None
) -> dict[str, dict[bytes, LastDelivered]]:
    """Return the newest delivery of each present or former member, by destination and digest."""
    number = Names(client).number_of(audience)
    found: dict[str, dict[bytes, LastDelivered]] = {}
    for partition, digest, record in every_record(client, settings, advance):
        now = standing(record, number) if record and number else None
        if now:
            found.setdefault(partition.destination, {})[digest] = now
    return found


def known_ids(client: Redis) -> dict[str, str]:
    """Return the slug that each id stands for."""
    answer = cast("Mapping[bytes, bytes]", client.hgetall(keys.AUDIENCES))
    return {key.decode(): value.decode() for key, value in answer.items()}


def slugs(settings: Settings, client: Redis, counts: AudienceCounts) -> set[str]:
    """Return the slugs of all audiences that are configured, known by an id, or in the ledger."""
    known = known_ids(client)
    configured = {name for each in settings.triggers.values() for name in each.audiences}
    configured |= {schedule.audience for schedule in settings.sync.values()}
    slugs = {known.get(name, name) for name in configured - {ALL_AUDIENCES}}
    return slugs | set(known.values()) | {slug for slug, _ in counts.found}


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
                "members": count.members,
                "entered": count.entered,
                "left": count.left,
                "last_event": shown_us(count.last_us) if count.last_us else None,
            }
            for (audience, destination), count in sorted(counts.found.items())
            if audience == slug
        },
    }


class Person(NamedTuple):
    """A person with the key of their profile; a ledger holds only the digest of that key.

    Attributes:
        row: The profile as the source has it; of a sync's member the identity alone.
        is_member: The source says that the person is in the audience, and not only who it is.
        entered_us: The time of an entrance that waits to be delivered; 0 = none does.
    """

    key: str
    row: dict[str, Any]
    is_member: bool = True
    entered_us: int = 0

    @property
    def digest(self) -> bytes:
        """Return the digest under which the ledger keeps the person."""
        return digest_of(self.key)


def remembered(client: Redis, settings: Settings, audience: str) -> Iterator[Person]:
    """Yield the people that syncs of an audience know by name; some come several times.

    Of whom no run has seen yet, it is not said that they are members.
    """
    for name in settings.sync:
        store = SyncStore(client, name, settings.redis)
        state = store.peek()
        if state.audience == audience:
            for partition in store.partitions(state.known or state.destinations):
                for key, mark in store.members(partition):
                    yield Person(key, alone(key), not Mark.loads(mark).is_name)


def waiting_in(client: Redis, settings: Settings, audience: str) -> Iterator[Person]:
    """Yield the people whose entrance into an audience waits to be delivered."""
    for stream in find_streams(client, all_partitions(client, settings)):
        for entry in read_entries(client, stream):
            header = entry.header
            if header and (header.audience, header.direction) == (audience, Direction.ENTER):
                with suppress(PayloadRefused, orjson.JSONDecodeError):
                    row = orjson.loads(decode_profile(entry.profile))
                    key = profile_key(row, settings.delivery.identity)
                    yield Person(key, row, entered_us=header.time_us)


def alone(key: str) -> dict[str, Any]:
    """Return a profile that holds nothing but the identity."""
    field, _, value = key.partition(":")
    return {PAYLOAD_ID if field == ID else field: value}


def named_in(settings: Settings, sources: Sequence[str]) -> Iterator[Person]:
    """Yield the people in files, or in scans (`lytics:SLUG`); skip rows without an identity."""
    for source in sources:
        for row in _rows(settings, source):
            with suppress(PayloadRefused):
                yield Person(profile_key(row, settings.delivery.identity), row)


def _rows(settings: Settings, source: str) -> Iterator[dict[str, Any]]:
    audience = audience_of(source)
    if audience:
        payloads = scan_rows(settings, audience)
        yield from (payload.value for payload in payloads)
        return
    columns = columns_of(settings)
    with opened(source) as file:
        for block in blocks_of(file, columns):
            for payload in block.payloads():
                if not payload.error and isinstance(payload.value, dict):
                    yield payload.value

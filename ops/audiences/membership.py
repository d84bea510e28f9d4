"""The members of audiences by the ledger, and the rows of `audience list`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from redis import Redis

from ops.state.ledger import Names
from ops.state.partitions import all_partitions, ask_each
from ops.terminal.moments import shown_us
from worker.contract import keys
from worker.contract.keys import DIGEST_BYTES, PartitionKeys
from worker.contract.ledger import LastDelivered, Record, standing, unpack_all
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scanning import ScanPart, read_keys, scan_parts, until_whole
from worker.contract.settings import ALL_AUDIENCES, Settings
from worker.contract.words import Direction

_PATTERN: Final = "l" + DIGEST_BYTES * "?"
_KEY: Final = re.compile(rb"\{([a-z0-9-]+):(\d+)\}l(.{%d})" % DIGEST_BYTES, re.DOTALL)

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
            place = PartitionKeys(match[1].decode(), int(match[2]))
            yield place, match[3], records.get(name)


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
    for place, _, record in _records(client, part, advance):
        if record is None:
            counts.unreadable += 1
            continue
        for audience in {key[0] for key in record.items if key[0]}:
            key = (names.audience(audience), place.destination)
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
    for place, digest, record in every_record(client, settings, advance):
        now = standing(record, number) if record and number else None
        if now:
            found.setdefault(place.destination, {})[digest] = now
    return found


def known_ids(client: Redis) -> dict[str, str]:
    """Return the slug that each id stands for."""
    with redis_errors():
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

"""Retiring an audience: the people who leave it, and their exits."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from segrelay.ops.audiences.membership import Person
from segrelay.ops.state.opened import insist
from segrelay.producer.events.payloads import SEGMENT_EVENTS
from segrelay.producer.events.values import format_time
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.sync.store import SyncStore
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.ledger import LastDelivered
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import BACKFILL, Direction
from segrelay.worker.errors import UsageWrong

_EVENTS_A_CALL: Final = 1_000
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class LeavingPeople:
    """The people of one destination who leave an audience.

    Args:
        held: Digests of those who are in it by the ledger.
        known: Those of them who are known by name.
        unknown: People who are named and of whom the ledger has never heard, or whose entrance
            waits.
    """

    held: frozenset[bytes]
    known: Sequence[Person] = field(repr=False)
    unknown: Sequence[Person] = field(repr=False)


def count_leaving(leaving: Iterable[LeavingPeople]) -> dict[str, int]:
    """Count the people who leave, each once: held, known, unknown, and those who get an exit."""
    held, known, unknown = set[bytes](), set[str](), set[str]()
    for group in leaving:
        held |= group.held
        known |= {person.key for person in group.known}
        unknown |= {person.key for person in group.unknown}
    return {
        "held": len(held),
        "known": len(known),
        "unknown": len(unknown),
        "published": len(known | unknown),
    }


def by_digest(people: Iterable[Person]) -> dict[bytes, Person]:
    """Return people by digest, each with the profile that has most fields."""
    found: dict[bytes, Person] = {}
    for person in people:
        other = found.get(person.digest, person)
        row = person.row if len(person.row) > len(other.row) else other.row
        found[person.digest] = Person(
            person.key,
            row,
            person.is_member or other.is_member,
            max(person.entered_us, other.entered_us),
        )
    return found


def find_leaving(
    standing: Mapping[bytes, LastDelivered],
    named: Mapping[bytes, Person],
    waiting: Mapping[bytes, Person],
) -> LeavingPeople:
    """Find the people to remove from an audience, by a destination's ledgers as they are now.

    `named` are people who are known by name, whether they are in it or not. The people of
    `waiting`, whose entrance waits, leave too.
    """
    entering = {
        digest: person
        for digest, person in waiting.items()
        if digest not in standing or person.entered_us > standing[digest][1]
    }
    unknown = {digest: person for digest, person in named.items() if digest not in standing}
    held = frozenset(digest for digest, (now, _) in standing.items() if now is Direction.ENTER)
    names = {**waiting, **named}
    return LeavingPeople(
        held,
        [names[digest] for digest in held & names.keys()],
        [
            person
            for digest, person in {**unknown, **entering}.items()
            if person.is_member and digest not in held
        ],
    )


def exit_event(person: Person, audience: str, time_us: int) -> Event:
    """Return an event that states that a person is not in an audience at a time."""
    entry: dict[str, Any] = {
        "slug": audience,
        "event": Direction.EXIT.value,
        Direction.EXIT.value: format_time(time_us),
    }
    profile = {**person.row, SEGMENT_EVENTS: [entry]}
    return Event(person.key, audience, Direction.EXIT, time_us, profile, state=True, skip_hook=True)


def exits_by_destination(publisher: Publisher, audience: str) -> dict[str, tuple[str, ...]]:
    """Return the names of the triggers for an audience's exits, by destination.

    Raises:
        UsageWrong: There is none.
    """
    found: dict[str, tuple[str, ...]] = {}
    for trigger in publisher.triggers_for(audience, Direction.EXIT):
        found[trigger.destination] = (*found.get(trigger.destination, ()), trigger.name)
    if not found:
        raise UsageWrong(
            f"No trigger wants the exit of audience '{audience}': name it in the audiences of a"
            ' trigger with on = "exit" until this is done.'
        )
    return dict(sorted(found.items()))


def publish_all(
    publisher: Publisher, events: Iterable[Event], triggers: tuple[str, ...]
) -> Iterator[int]:
    """Publish events for triggers whenever the backfill lane has room; yield each portion's size.

    Raises:
        RedisUnavailable: It was away for too long. Some may be published; doing it again is safe.
    """
    remaining = iter(events)
    while part := list(islice(remaining, _EVENTS_A_CALL)):

        def publish(part: Sequence[Event] = part) -> None:
            while publisher.why_full(BACKFILL):
                time.sleep(_LOOK_SECONDS)
            publisher.publish(part, PublishOptions(BACKFILL, triggers=triggers))

        insist(publish)
        yield len(part)


def syncs_of(client: Redis, settings: Settings, audience: str) -> list[str]:
    """Return the names of the syncs whose last run was about an audience."""
    return [
        name
        for name in settings.sync
        if SyncStore(client, name, settings.redis).peek().audience == audience
    ]

"""Moving people out of an audience: the people and their events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

from segrelay.ops.audiences.membership import Advance, Person, standings
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
"""The number of events in one call: even, so that a person's exit and entrance go together."""
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class LeavingGroup:
    """The people of one destination who leave an audience.

    Args:
        held: Digests of those who are in it by the ledger.
        known: Those of them who are known by name, each with the time of the entrance.
        unknown: People who are named and of whom the ledger has never heard, or whose entrance
            waits; each with the time of what names them.
    """

    destination: str
    held: frozenset[bytes]
    known: Sequence[tuple[Person, int]] = field(repr=False)
    unknown: Sequence[tuple[Person, int]] = field(repr=False)

    @property
    def people(self) -> list[tuple[Person, int]]:
        """Return the people for whom events can be published."""
        return [*self.known, *self.unknown]


@dataclass(frozen=True, slots=True)
class LeavingPeople:
    """The people that a command takes out of an audience, by destination."""

    named: int
    groups: Sequence[LeavingGroup]

    @property
    def held(self) -> int:
        """Return the number of members by the ledger."""
        return len(frozenset[bytes]().union(*(group.held for group in self.groups)))

    @property
    def known(self) -> int:
        """Count the members for whom an exit can be published, since their identity is known."""
        return len({person.key for group in self.groups for person, _ in group.known})

    @property
    def unknown(self) -> int:
        """Return the number of given people without a ledger entry about the audience."""
        return len({person.key for group in self.groups for person, _ in group.unknown})

    @property
    def published(self) -> int:
        """Return how many people get an event that says that they leave."""
        return len({person.key for group in self.groups for person, _ in group.people})

    @property
    def unnamed(self) -> int:
        """Count the members for whom no exit can be published, since their identity is unknown."""
        return self.held - self.known


def by_digest(people: Iterable[Person]) -> dict[bytes, Person]:
    """Return people by digest, each with the profile that has most fields, and the newest time."""
    found: dict[bytes, Person] = {}
    for person in people:
        other = found.get(person.digest, person)
        row = person.row if len(person.row) > len(other.row) else other.row
        found[person.digest] = Person(person.key, row, max(person.as_of_us, other.as_of_us))
    return found


def find_leaving(
    client: Redis,
    settings: Settings,
    slug: str,
    destinations: Sequence[str],
    named: Mapping[bytes, Person],
    *,
    waiting: Mapping[bytes, Person] = MappingProxyType({}),
    advance: Advance = lambda _: None,
) -> LeavingPeople:
    """Find the people to remove from an audience, by the ledgers as they are now.

    `named` are people who are known by name, whether they are in it or not. The people of
    `waiting`, whose entrance waits, leave too.
    """
    found = standings(client, settings, slug, advance)
    groups = [_group(each, found.get(each, {}), named, waiting) for each in destinations]
    return LeavingPeople(len(named), groups)


def _group(
    destination: str,
    known: Mapping[bytes, LastDelivered],
    named: Mapping[bytes, Person],
    waiting: Mapping[bytes, Person],
) -> LeavingGroup:
    entering = {
        digest: person
        for digest, person in waiting.items()
        if digest not in known or person.as_of_us > known[digest][1]
    }
    unknown = {digest: person for digest, person in named.items() if digest not in known}
    named = {**waiting, **named}
    held = {digest: at_us for digest, (now, at_us) in known.items() if now is Direction.ENTER}
    return LeavingGroup(
        destination,
        frozenset(held),
        [(named[digest], at_us) for digest, at_us in held.items() if digest in named],
        [
            (person, person.as_of_us)
            for digest, person in {**unknown, **entering}.items()
            if person.as_of_us and digest not in held
        ],
    )


def state_event(person: Person, audience: str, direction: Direction, time_us: int) -> Event:
    """Return an event that states a person's membership at a time."""
    entry: dict[str, Any] = {
        "slug": audience,
        "event": direction.value,
        direction.value: format_time(time_us),
    }
    profile = {**person.row, SEGMENT_EVENTS: [entry]}
    return Event(person.key, audience, direction, time_us, profile, state=True, skip_hook=True)


def destinations_of(publisher: Publisher, audience: str, direction: Direction) -> list[str]:
    """Return the destinations with a trigger for an audience and a direction."""
    return sorted({trigger.destination for trigger in publisher.triggers_for(audience, direction)})


def check_wanted(publisher: Publisher, audience: str, direction: Direction) -> None:
    """Refuse an audience that no trigger delivers in this direction."""
    if not publisher.triggers_for(audience, direction):
        raise UsageWrong(
            f"No trigger wants the {direction} of audience '{audience}': name it in the audiences"
            f' of a trigger with on = "{direction}" until this is done.'
        )


def publish_all(
    publisher: Publisher, events: Iterable[Event], *, destination: str
) -> Iterator[int]:
    """Publish events for a destination whenever the backfill lane has room; yield each portion.

    Raises:
        RedisUnavailable: It was away for too long. Some may be published; doing it again is safe.
    """
    remaining = iter(events)
    while part := list(islice(remaining, _EVENTS_A_CALL)):

        def publish(part: Sequence[Event] = part) -> None:
            while publisher.why_full(BACKFILL):
                time.sleep(_LOOK_SECONDS)
            triggers = _triggers(publisher, part, destination)
            publisher.publish(part, PublishOptions(BACKFILL, triggers=triggers))

        insist(publish)
        yield len(part)


def _triggers(publisher: Publisher, events: Iterable[Event], destination: str) -> tuple[str, ...]:
    return tuple(
        trigger.name
        for audience, direction in {(event.audience, event.direction) for event in events}
        for trigger in publisher.triggers_for(audience, direction)
        if trigger.destination == destination
    )


def syncs_of(client: Redis, settings: Settings, audience: str) -> list[str]:
    """Return the names of the syncs whose last run was about an audience."""
    return [
        name
        for name in settings.sync
        if SyncStore(client, name, settings.redis).peek().audience == audience
    ]

"""Taking everybody out of an audience, or into another: what is published, and what can't be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from redis import Redis

from ops.audiences.people import Person
from producer.events.payloads import SEGMENT_EVENTS
from producer.events.times import format_time
from producer.publish import Publisher
from producer.publishing.room import Room
from producer.sync.book import SyncBook
from worker.contract import keys
from worker.contract.events import Event
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings
from worker.contract.words import BACKFILL, Direction
from worker.errors import OperationsMustAct, UsageWrong

_EVENTS_A_CALL: Final = 1_000
_LOOK_SECONDS: Final = 0.5
_LOCK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Going:
    """Who goes out of an audience.

    Args:
        held: How many are in it by the ledger.
        named: Those of them who are known by name, by digest.
    """

    held: int
    named: Mapping[bytes, Person]

    @property
    def unnamed(self) -> int:
        """Return how many are known by their digest only: for them nothing can be published."""
        return self.held - len(self.named)


def going(held: Mapping[str, set[bytes]], people: Iterable[Person]) -> Going:
    """Find names for those whom the ledger holds; a profile with more fields wins."""
    everybody: set[bytes] = set().union(*held.values())
    named: dict[bytes, Person] = {}
    for person in people:
        digest = person.digest
        if digest in everybody and len(person.row) > len(named.get(digest, _NOBODY).row):
            named[digest] = person
    return Going(len(everybody), named)


_NOBODY: Final = Person("", {})


def state_event(
    person: Person, audience: str, direction: Direction, time_us: int, *, skip_hook: bool = True
) -> Event:
    """Return the event that a comparison makes of a person."""
    entry: dict[str, Any] = {
        "slug": audience,
        "event": direction.value,
        direction.value: format_time(time_us),
    }
    profile = {**person.row, SEGMENT_EVENTS: [entry]}
    return Event(person.key, audience, direction, time_us, profile, state=True, skip_hook=skip_hook)


def check_wanted(publisher: Publisher, audience: str, direction: Direction) -> None:
    """See that some trigger would deliver it.

    Raises:
        UsageWrong: None would.
    """
    if not publisher.routes_for(audience, direction):
        raise UsageWrong(
            f"No trigger wants the {direction} of audience '{audience}': name it in the audiences"
            f' of a trigger with on = "{direction}" until this is done.'
        )


def publish_all(
    publisher: Publisher,
    events: Iterable[Event],
    *,
    again: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Publish into the backfill lane, where there is room; yield how many each time.

    Raises:
        RedisUnavailable: Some may be published; doing it again is safe.
    """
    remaining = iter(events)
    while part := list(islice(remaining, _EVENTS_A_CALL)):
        while not isinstance(publisher.room(BACKFILL), Room):
            sleep(_LOOK_SECONDS)
        publisher.publish(part, BACKFILL, again=again)
        yield len(part)


def give_ids(client: Redis, old: str, new: str) -> int:
    """Let the ids of one slug stand for another; returns how many there are."""
    with redis_errors():
        known: Any = client.hgetall(keys.AUDIENCES)
        ids = [audience_id for audience_id, slug in known.items() if slug.decode() == old]
        if ids:
            client.hset(keys.AUDIENCES, mapping=dict.fromkeys(ids, new))
    return len(ids)


def give_syncs(client: Redis, settings: Settings, partitions: int, old: str, new: str) -> list[str]:
    """Let the syncs that know the members of one slug know them as another's; returns their names.

    Raises:
        OperationsMustAct: A step of one does not end.
    """
    given = []
    for name in settings.sync:
        book = SyncBook(client, name, partitions)
        if book.peek().audience == old:
            with_lock(book, new)
            given.append(name)
    return given


def with_lock(book: SyncBook, audience: str) -> None:
    """Give a sync's members to another slug; what is under way begins anew."""
    ends_at = time.monotonic() + _LOCK_SECONDS
    while (taken := book.take()) is None:
        if time.monotonic() > ends_at:
            raise OperationsMustAct(f"A step of sync '{book.name}' does not end; try again.")
        time.sleep(_LOOK_SECONDS)
    run, _ = taken
    run.give_to(audience)
    book.save(run, ends=True)

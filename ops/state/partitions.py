"""The partitions in Redis, and the progress of a change of their number.

Those of destinations that are not configured any more are among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from redis import Redis

from worker.contract import keys
from worker.contract.keys import PartitionKeys
from worker.contract.numbering import Numbering
from worker.contract.redis.claim import learn_numbering
from worker.contract.redis.clock import now_ms
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings

_Asked = TypeVar("_Asked")

_SEEN: Final = "seen_ms"


def known_destinations(client: Redis, settings: Settings) -> list[str]:
    """Return the destinations that are configured or have data in Redis."""
    with redis_errors():
        stored: Any = client.smembers(keys.DESTINATIONS)
    return sorted({*settings.destinations, *(name.decode() for name in stored)})


def all_partitions(
    client: Redis, settings: Settings, destinations: Iterable[str] = ()
) -> list[PartitionKeys]:
    """Return every partition of these destinations, or of all.

    While their number is being changed, those that follow are among them.
    """
    numbering = learn_numbering(client, settings)
    names = list(destinations) or known_destinations(client, settings)
    return [PartitionKeys(name, number) for name in names for number in numbering.all_numbers]


def ask_each(
    client: Redis, asked: Iterable[_Asked], *questions: Callable[[Any, _Asked], object]
) -> list[Any]:
    """Ask Redis these questions about each of them, in one round trip; returns all answers."""
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        for each in asked:
            for question in questions:
                question(pipe, each)
        return pipe.execute()


def destinations_of(places: Iterable[PartitionKeys]) -> list[str]:
    """Return the destinations of partitions, in their order."""
    return list(dict.fromkeys(place.destination for place in places))


@dataclass(slots=True)
class Carried:
    """Counts of profiles, deliveries and letters that were moved."""

    profiles: int = 0
    deliveries: int = 0
    letters: int = 0

    def __str__(self) -> str:
        """Return the counts in words."""
        return (
            f"{self.profiles:,} profiles, {self.deliveries:,} waiting deliveries,"
            f" {self.letters:,} dead letters"
        )


def note_carried(client: Redis, carried: Carried) -> None:
    """Record the progress of a change, and the time."""
    counts: Mapping[Any, Any] = {**asdict(carried), _SEEN: now_ms(client)}
    with redis_errors():
        client.hset(keys.RENUMBERING, mapping=counts)


def read_carried(client: Redis) -> Carried:
    """Return the progress of a change when it was last seen."""
    with redis_errors():
        found: Any = client.hgetall(keys.RENUMBERING)
    return Carried(**{name: int(found.get(name.encode(), 0)) for name in asdict(Carried())})


def partitions_document(client: Redis, numbering: Numbering) -> dict[str, Any]:
    """Return the number of partitions and the progress of a change of it, for JSON documents."""
    document = {"count": numbering.count, "first": numbering.first}
    if not numbering.target:
        return document
    with redis_errors():
        seen_ms: Any = client.hget(keys.RENUMBERING, _SEEN)
    carried = asdict(read_carried(client))
    return {**document, "changing_to": numbering.target, _SEEN: int(seen_ms or 0), **carried}

"""The partitions in Redis, including those of destinations that are not configured any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis import Redis

from worker.contract import keys
from worker.contract.keys import PartitionKeys
from worker.contract.redis.claim import learn_numbering
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings


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


def destinations_of(places: Iterable[PartitionKeys]) -> list[str]:
    """Return the destinations of partitions, in their order."""
    return list(dict.fromkeys(place.destination for place in places))

"""A benchmark of the ledger's size: the bytes that Redis needs for a profile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from redis import Redis

from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.ledger import Record, pack
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import with_delivered
from segrelay.worker.core.supersede import LedgerEvent
from tools.bench.frame.redis_alone import redis_alone, used_memory

_PARTITIONS: Final = 16
_RETENTION_MS: Final = 90 * 86_400_000
_AT_ONCE: Final = 5_000
_TIME_US: Final = 1_790_000_000_123_456
_CALM_SECONDS: Final = 0.5
_CALM_AT_MOST_SECONDS: Final = 30.0

LedgerEntry = tuple[int, int, Direction]
"""A delivery in a ledger: the audience's number, the trigger's number, and the direction."""
ENTER, EXIT, EXIT_EVENT = range(1, 4)
"""The numbers that the triggers of the cases have in the ledger."""
CASES: Final[dict[str, Sequence[LedgerEntry]]] = {
    "one audience entered": [(1, ENTER, Direction.ENTER)],
    "three audiences entered": [(a, ENTER, Direction.ENTER) for a in (1, 2, 3)],
    "one audience entered and left, three triggers": [
        (1, ENTER, Direction.ENTER),
        (1, EXIT, Direction.EXIT),
        (1, EXIT_EVENT, Direction.EXIT),
    ],
    "three audiences entered and left, three triggers": [
        (audience, trigger, direction)
        for audience in (1, 2, 3)
        for trigger, direction in (
            (ENTER, Direction.ENTER),
            (EXIT, Direction.EXIT),
            (EXIT_EVENT, Direction.EXIT),
        )
    ],
}


class Size(NamedTuple):
    """The size of a profile's ledger in bytes.

    Args:
        packed: Length of the packed text.
        memory: Memory that Redis needs for it, with its share of the tables of keys and expiries.
        least_left_ms: Shortest time to live of some of the ledgers.
    """

    packed: int
    memory: float
    least_left_ms: int


def ledger_size(events: int, case: str) -> dict[str, float]:
    """Measure the ledgers of many profiles, each with the deliveries of a case of `CASES`."""
    size = measure(CASES[case], events)
    return {"bytes_a_profile": round(size.memory), "packed_bytes": size.packed}


def measure(deliveries: Sequence[LedgerEntry], profiles: int) -> Size:
    """Measure the bytes of a ledger by writing many equal ones into an empty Redis."""
    text = packed(deliveries)
    with redis_alone() as on:
        client = on.client
        client.config_set("appendfsync", "no")  # the disk is not what is measured
        before = _calm_memory(client)
        write_ledgers(client, text, profiles)
        after = _calm_memory(client)
        left = [client.pttl(_key(n)) for n in range(0, profiles, max(1, profiles // 100))]
    return Size(len(text), (after - before) / profiles, min(left))


def write_ledgers(client: Redis, text: bytes, profiles: int) -> None:
    """Write the same ledger for a number of profiles, spread over all partitions."""
    for first in range(0, profiles, _AT_ONCE):
        pipe = client.pipeline(transaction=False)
        for number in range(first, min(first + _AT_ONCE, profiles)):
            pipe.set(_key(number), text, px=_RETENTION_MS)
        pipe.execute()


def packed(deliveries: Sequence[LedgerEntry]) -> bytes:
    """Return the packed ledger of a profile with these deliveries."""
    record = Record()
    for number, (audience, trigger, direction) in enumerate(deliveries):
        record = with_delivered(
            record, LedgerEvent(_TIME_US + number, direction, trigger, audience)
        )
    return pack(record)


def _key(number: int) -> bytes:
    place = PartitionKeys("insider", number % _PARTITIONS)
    return place.ledger(digest_of(f"email:person{number}@example.com"))


def _calm_memory(client: Redis) -> int:
    """Return the memory in use once it no longer shrinks.

    A table that grows exists twice for some seconds.
    """
    ends_at = time.monotonic() + _CALM_AT_MOST_SECONDS
    used = used_memory(client)
    while time.monotonic() < ends_at:
        time.sleep(_CALM_SECONDS)
        now = used_memory(client)
        if now >= used:
            return now
        used = now
    return used

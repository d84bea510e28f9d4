"""What the ledger costs a profile, in bytes: `python -m ops.bench.ledger_size [PROFILES]`.

Measured as the memory of an embedded Redis before and after, tables of keys and ends included.
While a table grows it stands there twice, for seconds: measured is what is left then.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from redis import Redis

from ops.bench.frame.ground import ground
from ops.terminal.console import say
from worker.contract.keys import PartitionKeys, digest_of
from worker.contract.words import Direction
from worker.core.ledger import Fact, Record, pack, with_delivered

_PROFILES: Final = 1_000_000
_PARTITIONS: Final = 16
_RETENTION_MS: Final = 90 * 86_400_000
_AT_ONCE: Final = 5_000
_TIME_US: Final = 1_790_000_000_123_456
_CALM_SECONDS: Final = 0.5
_CALM_AT_MOST_SECONDS: Final = 30.0

ToldTime = tuple[int, int, Direction]
"""Numbers of audience and trigger, and the direction."""
ENTER, EXIT, EXIT_EVENT = range(1, 4)
"""Triggers."""
CASES: Final[dict[str, Sequence[ToldTime]]] = {
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
    """What was measured, in bytes a profile.

    Args:
        packed: The text itself.
        memory: What Redis takes for it.
        least_left_ms: The shortest life left of some ledgers that were looked at.
    """

    packed: int
    memory: float
    least_left_ms: int


def measure(told: Sequence[ToldTime], profiles: int) -> Size:
    """Write so many ledgers into a Redis of their own."""
    text = packed(told)
    with ground() as on:
        client = on.client
        client.config_set("appendfsync", "no")  # the disk is not what is measured
        before = _calm_memory(client)
        for first in range(0, profiles, _AT_ONCE):
            pipe = client.pipeline(transaction=False)
            for number in range(first, min(first + _AT_ONCE, profiles)):
                pipe.set(_key(number), text, px=_RETENTION_MS)
            pipe.execute()
        after = _calm_memory(client)
        left = [client.pttl(_key(n)) for n in range(0, profiles, profiles // 100)]
    return Size(len(text), (after - before) / profiles, min(left))


def packed(told: Sequence[ToldTime]) -> bytes:
    """Return the ledger of a profile of which that was delivered."""
    record = Record()
    for number, (audience, trigger, direction) in enumerate(told):
        record = with_delivered(record, Fact(audience, trigger, direction, _TIME_US + number))
    return pack(record)


def _key(number: int) -> bytes:
    place = PartitionKeys("insider", number % _PARTITIONS)
    return place.ledger(digest_of(f"email:person{number}@example.com"))


def _calm_memory(client: Redis) -> int:
    """Return the memory in use once it does not shrink any more."""
    ends_at = time.monotonic() + _CALM_AT_MOST_SECONDS
    used = _used(client)
    while time.monotonic() < ends_at:
        time.sleep(_CALM_SECONDS)
        now = _used(client)
        if now >= used:
            return now
        used = now
    return used


def _used(client: Redis) -> int:
    return int(client.info("memory")["used_memory"])


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profiles", nargs="?", type=int, default=_PROFILES)
    profiles = parser.parse_args().profiles
    for name, told in CASES.items():
        size = measure(told, profiles)
        say(f"ledger, {name}: {size.memory:.0f} bytes a profile ({size.packed} of them packed)")


if __name__ == "__main__":
    main()

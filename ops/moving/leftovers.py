"""Finding what partitions still hold from which everything should have been carried over."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from redis import Redis

from ops.moving.contents import TRACES, number_in
from ops.moving.rows import LOGS
from worker.contract.keys import PartitionKeys
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scanning import scan_keys

_LEFT_ALONE: Final = frozenset({"lease", *TRACES})
_COUNTS: Final = frozenset({"counts", "jobtimes"})
_STREAM: Final = "s:"


def leftovers(
    client: Redis, destination: str, numbers: Collection[int], renew: Callable[[], None]
) -> set[int]:
    """Return those of these partitions that hold anything; what is empty is deleted.

    Empty streams are kept elsewhere, because a late settlement could hit a new entry of the same
    id. Nothing is added to partitions with former numbers.
    """
    found: set[int] = set()
    places = [PartitionKeys(destination, number) for number in numbers]
    for names in scan_keys(client, places, "*"):
        renew()
        for name in names:
            number = number_in(name, destination)
            part = name.partition(b"}")[2].decode(errors="replace")
            if number not in numbers or part in _LEFT_ALONE:
                continue
            if _is_empty(client, name, part):
                with redis_errors():
                    client.unlink(name)
            else:
                found.add(number)
    return found


def _is_empty(client: Redis, name: bytes, part: str) -> bool:
    with redis_errors():
        if part in LOGS or part.startswith(_STREAM):
            return not client.xlen(name)
        if part in _COUNTS:
            counts: Any = client.hvals(name)
            return not any(map(int, counts))
        if part == "responseslost":
            lost: Any = client.get(name)
            return not int(lost or 0)
    return False

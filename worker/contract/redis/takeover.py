"""Takes over a Redis of segrelay's first version, and keeps that version out of it afterwards.

In that version, the keys that all partitions share began with `segrelay:`, without a hash tag.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, Final

import redis
import structlog

from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scanning import ScanPart, read_keys, until_whole
from worker.errors import RedisMismatch

LOG: Final = structlog.get_logger()
_KNOWN_FORMAT: Final = b"1"
_CLOSED: Final = "2"
_SEEN_SECONDS: Final = 15


def is_former(client: redis.Redis) -> bool:
    """Say whether a Redis is one of the first version that was not taken over yet.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        return client.get(keys.FORMER_FORMAT) == _KNOWN_FORMAT


def close_to_former(client: redis.Redis) -> None:
    """Make the first version refuse this Redis, which it would take for an empty one.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        client.set(keys.FORMER_FORMAT, _CLOSED)


def take_over(client: redis.Redis) -> None:
    """Give the keys of the first version their present names; can be repeated when interrupted.

    Raises:
        RedisMismatch: A worker of the first version runs, or keys of both names are there.
        RedisUnavailable: Redis can't be asked.
    """
    _refuse_running(client)
    part = ScanPart(keys.FORMER_FORMAT, keys.FORMER)
    found = until_whole(lambda: read_keys(client, part))
    names = sorted({one.decode() for one in chain.from_iterable(found)})
    for name in names:
        if name != keys.FORMER_FORMAT:
            _rename(client, name, keys.present_name(name))
    close_to_former(client)
    LOG.info("redis.taken_over", message=f"{len(names) - 1} keys of an earlier version")


def _refuse_running(client: redis.Redis) -> None:
    with redis_errors():
        seconds: Any = client.time()[0]
        least = (seconds - _SEEN_SECONDS) * 1_000
        running = client.zcount(keys.FORMER_PROCESSES, least, "+inf")
    if running:
        raise RedisMismatch(
            f"{running} workers of an earlier version run, or ran {_SEEN_SECONDS} s ago: stop them."
            " Then this version takes over what they left."
        )


def _rename(client: redis.Redis, former: str, present: str) -> None:
    try:
        renamed = client.renamenx(former, present)
    except redis.ResponseError as error:
        if "no such key" in str(error):
            return  # another process of ours was quicker, or it has lapsed
        with redis_errors():
            raise
    if not renamed:
        raise RedisMismatch(
            f"Redis holds {former} of an earlier version beside {present}: both have used it"
            " side by side. Restore a backup, or use another Redis."
        )

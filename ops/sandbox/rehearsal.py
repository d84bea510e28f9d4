"""Clearing the state of an earlier rehearsal: a new sandbox starts empty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any, Final

from redis import Redis

from worker.contract.redis.connection import connect, redis_errors, resolve_url, wait_ready
from worker.contract.settings import Settings

_STEP: Final = 1_000
_PATTERNS: Final = (
    ("{*}l*", "string"),  # ledgers
    ("{*}sync:*", "hash"),
    ("{*}who", "hash"),
    ("{*}reached", "zset"),
)
"""Keys about people at the sandbox, with their types: `lease` and others look alike."""


def forget_people(settings: Settings) -> int:
    """Forget the people of an earlier sandbox; waiting deliveries stay, and go to the new one.

    Returns:
        How many ledgers and lists of members there were.

    Raises:
        RedisUnavailable: The rehearsal's Redis does not start.
    """
    url = resolve_url(settings.redis)
    wait_ready(url)
    with closing(connect(url)) as client, redis_errors():
        return sum(_unlink(client, keys) for keys in _in_steps(_keys(client)))


def _keys(client: Redis) -> Iterator[Any]:
    for pattern, kind in _PATTERNS:
        yield from client.scan_iter(match=pattern, count=_STEP, _type=kind)


def _unlink(client: Redis, keys: list[Any]) -> int:
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.unlink(key)
    return sum(pipe.execute())


def _in_steps(keys: Iterator[Any]) -> Iterator[list[Any]]:
    while step := list(islice(keys, _STEP)):
        yield step

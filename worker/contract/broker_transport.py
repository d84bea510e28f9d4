"""Celery's way to Redis, with room in a full one: its few small writes are never refused.

A Redis at `maxmemory` refuses whatever may grow. Celery's messages are how waiting events get
worked off, and that is what makes room: refused, the full Redis would stay full.
"""

from __future__ import annotations

from typing import Any, Final

import redis
import redis.client
from kombu.transport.redis import Channel, Transport

_GROWING: Final = frozenset({"LPUSH", "RPUSH", "SADD", "HSET", "ZADD"})
_SCRIPT: Final = """\
#!lua flags=allow-oom
-- One command on one key. KEYS[1] key   ARGV[1] the command's name, then its arguments
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
"""


def _allowed(words: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a command in such a form that a full Redis takes it."""
    if words[0] not in _GROWING:
        return words
    name, key, *rest = words
    return ("EVAL", _SCRIPT, 1, key, name, *rest)


class _Pipeline(redis.client.Pipeline):
    def execute_command(self, *words: Any, **options: Any) -> Any:
        return super().execute_command(*_allowed(words), **options)  # type: ignore[no-untyped-call]


class _Client(redis.Redis):
    def execute_command(self, *words: Any, **options: Any) -> Any:
        return super().execute_command(*_allowed(words), **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> _Pipeline:  # noqa: FBT001, FBT002 - as in the library
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _RoomyChannel(Channel):  # type: ignore[misc] # kombu is not typed
    def _get_client(self) -> type[redis.Redis]:
        super()._get_client()
        return _Client


class RoomyTransport(Transport):  # type: ignore[misc] # kombu is not typed
    """kombu's transport over Redis, whose writes a full Redis takes."""

    Channel = _RoomyChannel

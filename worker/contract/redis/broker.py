"""The client through which Celery reaches its broker: a full Redis takes its writes."""

from __future__ import annotations

from typing import Any, Final

import redis
import redis.client

from segrelay.worker.contract.redis.scripts import IN_ANY_CASE

_GROWING: Final = frozenset({"LPUSH", "RPUSH", "SADD", "HSET", "ZADD", "SET"})
_FLAGS: Final = "#!lua flags=allow-oom"


def _allowed(words: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a command in a form that a full Redis accepts."""
    if words[0] not in _GROWING:
        return words
    name, key, *rest = words
    return ("EVAL", IN_ANY_CASE, 1, key, name, *rest)


class _Pipeline(redis.client.Pipeline):
    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Run a command in a form that a full Redis accepts."""
        return super().execute_command(*_allowed(words), **options)  # type: ignore[no-untyped-call]


class BrokerClient(redis.Redis):
    """A client for the messages of Celery, which raises the library's errors, as Celery expects."""

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Run a command in a form that a full Redis accepts."""
        return super().execute_command(*_allowed(words), **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> _Pipeline:  # noqa: FBT001, FBT002 - as in the library
        """Return a pipeline whose commands a full Redis accepts."""
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def register_script(self, script: Any) -> Any:
        """Register a script that a full Redis runs."""
        return super().register_script(f"{_FLAGS}\n{script}")

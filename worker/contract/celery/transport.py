"""Celery's transports to Redis, whose few small writes even a full Redis accepts.

A Redis at `maxmemory` refuses whatever may grow. Celery's messages are how waiting events get
worked off, and that is what makes room: refused, the full Redis would stay full.

What is no message of ours is refused here, before Celery sees it: its workers would end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any, Final

import redis
import redis.client
import structlog
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel, QoS, SentinelChannel, SentinelTransport, Transport

from worker.contract.celery.wire import QUEUES, rebuild_message

LOG: Final = structlog.get_logger()
_GROWING: Final = frozenset({"LPUSH", "RPUSH", "SADD", "HSET", "ZADD", "SET"})
_FLAGS: Final = "#!lua flags=allow-oom"
_SCRIPT: Final = f"""\
{_FLAGS}
-- One command on one key. KEYS[1] key   ARGV[1] the command's name, then its arguments
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
"""


def _allowed(words: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a command in a form that a full Redis accepts."""
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

    def register_script(self, script: Any) -> Any:
        return super().register_script(f"{_FLAGS}\n{script}")


class _QoS(QoS):
    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back messages that were fetched and not begun, unless the connection is gone.

        The library runs into an error of its own then, and ends the worker. What is not given back
        is found by the sweep.
        """
        connection = self.channel.connection  # a channel that was closed has none
        if connection is not None and connection.client is not None:
            super().restore_unacked_once(stderr)  # type: ignore[no-untyped-call]


_refused: Final = Counter[str]()
"""The messages that this process has refused, by the reason."""


def count_refused() -> int:
    """Return how many messages this process has refused since it began."""
    return _refused.total()


def _refuse(queue: str, reason: str) -> None:
    """Log and count a message that was taken from the broker and is thrown away.

    Nothing of it is logged: anybody may have written it.
    """
    _refused[reason] += 1
    LOG.warning("message.refused", queue=queue, reason=reason, refused=_refused.total())


class _RefusingChannel(Channel):
    """A channel that refuses what is no message, where the library would raise an error."""

    def basic_consume(self, queue: str, *arguments: Any, **options: Any) -> Any:
        """Consume from a queue; of those that hold tasks, messages are made anew."""
        tag = super().basic_consume(queue, *arguments, **options)  # type: ignore[no-untyped-call]
        if queue in QUEUES:
            deliver = self.connection._callbacks[queue]  # noqa: SLF001 - there is no other way in

            def deliver_rebuilt(received: Any) -> Any:
                try:
                    message = rebuild_message(received, queue)
                except ValueError as error:
                    return _refuse(queue, str(error))
                return deliver(message)

            self.connection._callbacks[queue] = deliver_rebuilt  # noqa: SLF001
        return tag

    def _brpop_read(self, **options: Any) -> bool:
        with self._refusing("tasks"):
            super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        return True

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        with self._refusing(exchange):
            super()._deliver_fanout_message(message, exchange)  # type: ignore[no-untyped-call]
        return True

    @contextmanager
    def _refusing(self, queue: str) -> Iterator[None]:
        """Refuse the message at hand at any error but those of the connection.

        Redis has given it away already, so it is gone.
        """
        try:
            yield
        except (Empty, OperationalError, redis.RedisError, *self.connection_errors):
            raise
        except Exception as error:  # noqa: BLE001 - the library raises what Python happens to
            _refuse(queue, f"it can't be read ({type(error).__name__})")


class _RoomyChannel(_RefusingChannel):
    QoS = _QoS

    def _get_client(self) -> type[redis.Redis]:
        return _Client


class _RoomySentinelChannel(_RefusingChannel, SentinelChannel):
    """A channel behind Sentinels that keeps the library's own connections.

    `sentinels.SentinelConnection` would make a lost connection of a refused write, and with that a
    lost watch: the library would repeat the giving back of messages for ever.
    """

    QoS = _QoS

    def _get_client(self) -> type[redis.Redis]:
        return _Client


class RoomyTransport(Transport):
    """kombu's transport for `redis://` and `rediss://`; a full Redis takes its writes."""

    Channel = _RoomyChannel


class RoomySentinelTransport(SentinelTransport):
    """kombu's transport for `sentinel://`; a full Redis takes its writes."""

    Channel = _RoomySentinelChannel


def register() -> None:
    """Register these transports with kombu, before it looks one up for the first time."""
    for scheme, transport in (
        ("redis", RoomyTransport),
        ("rediss", RoomyTransport),
        ("sentinel", RoomySentinelTransport),
    ):
        TRANSPORT_ALIASES[scheme] = f"{transport.__module__}:{transport.__qualname__}"

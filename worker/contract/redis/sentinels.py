"""Clients that find the master through Sentinels, and leave a master that was replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import redis.asyncio
import redis.asyncio.sentinel
import redis.exceptions
import redis.sentinel

from segrelay.worker.contract.redis.client import (
    AsyncRedis,
    NoMaster,
    NoReplicas,
    Pipeline,
    Redis,
    why_to_leave,
)
from segrelay.worker.contract.redis.url import RedisAddress

SENTINEL_SECONDS: Final = 1.0
"""The seconds that one Sentinel may take to answer; each connection asks one after the other."""
_LOOK_SECONDS: Final = 0.2
_T = TypeVar("_T")
_Errors = type[Exception] | tuple[type[Exception], ...]
READS: Final = frozenset(
    (
        *("EXISTS", "GET", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "INFO", "LLEN"),
        *("LRANGE", "MGET", "PING", "SCARD", "SMEMBERS", "TIME", "XLEN", "XRANGE"),
        *("XREVRANGE", "ZCARD", "ZRANGE", "ZRANGEBYSCORE", "ZSCORE", "HVALS", "PTTL"),
        *("EVAL_RO", "EVALSHA_RO", "SCRIPT LOAD", "MULTI", "EXEC"),
    )
)
"""Commands that change no data, so they may be repeated on a new master; not SCAN with its cursor.
A MULTI holds nothing that is not named here itself."""


class _Finding:
    """Adds the reason to the library's error that no master is found."""

    _is_down = False

    def check_master_state(self, state: Mapping[str, Any], service_name: str) -> bool:
        """Say whether a master that a Sentinel names can be used."""
        is_up: bool = super().check_master_state(state, service_name)  # type: ignore[misc]
        self._is_down = not is_up
        return is_up

    @contextmanager
    def _found(self, service_name: str) -> Iterator[None]:
        self._is_down = False
        try:
            yield
        except (
            redis.sentinel.MasterNotFoundError,
            redis.asyncio.sentinel.MasterNotFoundError,
        ) as error:
            why = (
                f"can't be found: no Sentinel that can be reached knows a master `{service_name}`;"
                " see that they run, and that redis.url names their hosts and the master rightly"
            )
            if self._is_down:
                why = (
                    f"has no master now: the Sentinels say that `{service_name}` is down, and no"
                    " replica has taken its place yet"
                )
            elif "Authentication" in str(error):
                why = (
                    "can't be found: its Sentinels refuse the user name or password; correct"
                    " sentinel_username and sentinel_password in redis.url"
                )
            raise NoMaster(why) from None


class _Sentinels(_Finding, redis.sentinel.Sentinel):
    def discover_master(self, service_name: str) -> Any:
        with self._found(service_name):
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]


class _AsyncSentinels(_Finding, redis.asyncio.sentinel.Sentinel):
    async def discover_master(self, service_name: str) -> Any:
        with self._found(service_name):
            return await super().discover_master(service_name)


class _Leaving:
    """Leaves a server that is the master no longer, as the library does after a refused write.

    A server that has become a replica refuses no script that finds everything written already.
    """

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except redis.exceptions.ResponseError as error:
            gone = why_to_leave(error)
            if gone is None:
                raise
            self.disconnect()  # type: ignore[attr-defined]
            raise gone from None


class _AsyncLeaving:
    """The asynchronous form of `_Leaving`."""

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)  # type: ignore[misc]
        except redis.exceptions.ResponseError as error:
            gone = why_to_leave(error)
            if gone is None:
                raise
            await self.disconnect()  # type: ignore[attr-defined]
            raise gone from None


class SentinelConnection(_Leaving, redis.sentinel.SentinelManagedConnection):
    """A connection to the master that Sentinels name.

    Args:
        away_seconds: The time for which a connection is tried, while there is no master.
    """

    def __init__(self, *, away_seconds: float = 0.0, **options: Any) -> None:
        self._away_seconds = away_seconds
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def connect(self) -> None:
        """Connect; nothing was sent yet, so trying again is harmless."""
        lost = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
        _repeated(super().connect, lost, self._away_seconds)


def _repeated(run: Callable[[], _T], harmless: _Errors, seconds: float) -> _T:
    """Run something, again and again for `seconds` if it ends with an error that is harmless."""
    gives_up_at = time.monotonic() + seconds
    while True:
        try:
            return run()
        except redis.exceptions.AuthenticationError:
            raise
        except harmless:
            if time.monotonic() >= gives_up_at:
                raise
        time.sleep(_LOOK_SECONDS)


class SentinelSSLConnection(SentinelConnection, redis.sentinel.SentinelManagedSSLConnection):
    """A connection with TLS to the master that Sentinels name."""


class _AsyncConnection(_AsyncLeaving, redis.asyncio.sentinel.SentinelManagedConnection):
    pass


class _AsyncSSLConnection(_AsyncLeaving, redis.asyncio.sentinel.SentinelManagedSSLConnection):
    pass


class BehindSentinels(Redis):
    """A client that, while there is no master, repeats commands that had no effect.

    It closes its connections to the Sentinels too, which the library leaves open.

    Attributes:
        away_seconds: The time for which a connection is tried, while there is no master.
    """

    away_seconds = 0.0

    def run_command(self, *words: Any, **options: Any) -> Any:
        """Run a command; while there is no master, repeat it if that is harmless."""
        harmless = redis.exceptions.ConnectionError if words[0] in READS else NoReplicas
        run = partial(super().run_command, *words, **options)
        return _repeated(run, harmless, self.away_seconds)

    def run_pipeline(self, pipe: Pipeline) -> list[Any]:
        """Run the commands of a pipeline; repeat them if they only read."""
        commands, run = list(pipe.command_stack), super().run_pipeline
        only_reads = all(words[0] in READS for words, _ in commands)

        def again() -> list[Any]:
            pipe.command_stack = list(commands)
            return run(pipe)

        harmless = redis.exceptions.ConnectionError if only_reads else ()
        return _repeated(again, harmless, self.away_seconds)

    def close(self) -> None:
        """Close the connections to the master and to the Sentinels."""
        super().close()
        self.connection_pool.sentinel_manager.close()  # type: ignore[attr-defined]


class AsyncBehindSentinels(AsyncRedis):
    """An asynchronous client of the master that Sentinels name; it repeats no command."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - as in the library
        """Close the connections to the master and to the Sentinels."""
        await super().aclose(close_connection_pool)
        await self.connection_pool.sentinel_manager.aclose()  # type: ignore[attr-defined]


class MasterKind(NamedTuple):
    """The classes of synchronous or asynchronous clients of a master."""

    sentinels: Any
    client: Any
    plain: Any
    with_tls: Any


MASTER: Final = MasterKind(_Sentinels, BehindSentinels, SentinelConnection, SentinelSSLConnection)
ASYNC_MASTER: Final = MasterKind(
    _AsyncSentinels, AsyncBehindSentinels, _AsyncConnection, _AsyncSSLConnection
)


def master_client(
    kind: MasterKind, address: RedisAddress, options: Mapping[str, Any], away_seconds: float
) -> Any:
    """Return a client of the master; each of its connections asks the Sentinels for it.

    Args:
        kind: An asynchronous one waits for no master.
        address: Of the Sentinels.
        options: Of each connection to the master.
        away_seconds: The time for which a connection is tried, while there is no master.
    """
    quick = min(SENTINEL_SECONDS, options["socket_timeout"])
    own = {
        "socket_timeout": quick,
        "socket_connect_timeout": quick,
        "socket_keepalive": True,
        "protocol": options["protocol"],
        "retry": options["retry"],
    } | address.sentinel_options
    waits = {"away_seconds": away_seconds} if kind is MASTER else {}
    client = kind.sentinels(address.hosts, sentinel_kwargs=own, **options).master_for(
        address.service,
        redis_class=kind.client,
        connection_class=kind.with_tls if address.tls else kind.plain,
        **waits,
    )
    if kind is MASTER:
        client.away_seconds = away_seconds
    return client

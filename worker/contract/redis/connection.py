"""Connections to Redis, the decision whether one can be used, and the wait until it can.

Also Redis' clock, by which all moments in Redis are told, and the wait until replicas hold what was
written, so that a failover loses nothing acknowledged.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Final, NamedTuple

import hiredis
import redis
import redis.asyncio.retry
import redis.backoff
import redis.client
import redis.connection
import redis.retry
from redis.driver_info import DriverInfo
from redis.exceptions import AuthenticationError

from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.contract.redis.client import (
    AsyncRedis,
    Redis,
    ResponseError,
    redis_errors,
    run_through,
)
from segrelay.worker.contract.redis.masters import (
    QUICK_SECONDS,
    AsyncRoutedRedis,
    ClusterRouter,
    RoutedRedis,
    Router,
    SentinelRouter,
    as_master,
    in_tasks,
    in_threads,
)
from segrelay.worker.contract.redis.scripts import IN_ANY_CASE
from segrelay.worker.contract.redis.url import (
    EmbeddedFiles,
    FoundBy,
    RedisAddress,
    RedisNode,
    parse_redis_url,
    patience_seconds,
)
from segrelay.worker.contract.settings.sections import RedisSettings
from segrelay.worker.contract.settings.values import EMBEDDED
from segrelay.worker.errors import NotPermitted, RedisMismatch, RedisUnavailable

_LEAST: Final = {"redis": (7, 2), "valkey": (8, 0)}

_SYNC_LOSS: Final = "a crash of its machine or process can lose events that were accepted"


def why_unfit(info: Mapping[str, Any], found_by: FoundBy) -> str:
    """Return why a Redis can never be used, by its answer to INFO; "" if it can."""
    if info.get("cluster_enabled") == 1 and found_by != "cluster":
        return "it is a Redis Cluster; write redis+cluster:// in redis.url"
    # Valkey calls itself Redis 7.2.4 for old clients.
    name = "valkey" if "valkey_version" in info else "redis"
    version, least = str(info.get(f"{name}_version") or "0"), _LEAST[name]
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) >= least:
        return ""
    name = name.capitalize()
    return f"it is {name} {version}; at least {name} {least[0]}.{least[1]} is needed"


def why_not_yet(info: Mapping[str, Any]) -> str:
    """Return why a Redis can't be used now, by its answer to INFO; "" if it can."""
    if info.get("loading") == 1:
        return "it is loading its data"
    if info.get("role", "master") != "master":
        return "it is a read-only replica; redis.url has to name the master"
    return ""


def weaknesses(
    info: Mapping[str, Any],
    appendfsync: str | None,
    *,
    found_by: FoundBy = "",
    replicas: int = 0,
) -> list[str]:
    """Return a warning, one sentence, for each setting of Redis that may lose accepted events.

    Args:
        info: The answer to INFO.
        appendfsync: The value that is configured there; None = it is not to be seen.
        found_by: The way to find the master: Sentinels and a Cluster may put a replica in its
            place.
        replicas: The number of replicas that must confirm a write.
    """
    found = []
    if info.get("aof_enabled") == 0:
        found.append(f"appendonly is off: {_SYNC_LOSS}; set appendonly yes, appendfsync always")
    elif appendfsync is None:
        found.append("appendfsync can't be seen (CONFIG is not allowed); it should be always")
    elif appendfsync != "always":
        found.append(f"appendfsync is {appendfsync}: {_SYNC_LOSS}; set appendfsync always")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"maxmemory-policy is {policy}: when memory is short it throws events away;"
            " set maxmemory-policy noeviction"
        )
    there = int(info.get("connected_slaves", 0))
    if there < replicas:
        found.append(
            f"{there} of the {replicas} replicas that redis.replicas demands follow it: nothing is"
            " accepted, sent or settled until they do"
        )
    elif found_by and not replicas:
        is_master = found_by == "cluster"
        how = "is a master of a Cluster" if is_master else "is found through Sentinels"
        found.append(
            f"it {how}: a failover loses what was accepted and had not reached the replica yet;"
            " set redis.replicas to the number of its replicas"
        )
    elif found_by and there > replicas:
        found.append(
            f"redis.replicas demands {replicas} of its {there} replicas: a failover to one that has"
            f" not confirmed yet loses what the others have; set redis.replicas to {there}"
        )
    return found


TIMEOUT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 1.0
_LOOK_EVERY_SECONDS: Final = 0.05
_START_SECONDS: Final = 30.0
_DRIVER: Final = DriverInfo()  # the library would look its version up for each client
_RESP: Final = 2
"""The protocol's version: the third would add a handshake and notifications that move timeouts."""


def connect(
    url: str,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    away_seconds: float = 0.0,
    replicas: int = 0,
) -> Redis:
    """Return a client that sends a command at most once, and returns answers as bytes.

    Args:
        url: The URL, see `worker.contract.redis.url`. Behind Sentinels each connection goes to
            whichever server is the master when it begins, in a Cluster to the master of the key's
            slot.
        timeout_seconds: The longest wait for a connection, and for each answer.
        away_seconds: The longest wait for a new master, where nothing was sent yet; behind
            Sentinels and in a Cluster.
        replicas: The number of replicas that must confirm what is accepted; see `Redis`.

    Raises:
        ConfigurationInvalid: The URL can't be read.
    """
    client: Redis = _client(_SYNC, url, timeout_seconds, away_seconds, replicas)
    return client


def connect_async(
    url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, replicas: int = 0
) -> AsyncRedis:
    """Return an asynchronous client; see `connect`."""
    client: AsyncRedis = _client(_ASYNC, url, timeout_seconds, 0.0, replicas)
    return client


class _Kind(NamedTuple):
    """The differences between synchronous and asynchronous clients."""

    of_server: Any
    of_masters: Callable[[Router], Any]
    retry: Any
    as_master: Callable[[Any], Any]
    sleep: Callable[[float], Any]
    together: Callable[..., Any]


_SYNC: Final = _Kind(
    Redis,
    RoutedRedis,
    redis.retry.Retry,
    lambda connection: run_through(as_master(connection)),
    time.sleep,
    in_threads,
)
_ASYNC: Final = _Kind(
    AsyncRedis, AsyncRoutedRedis, redis.asyncio.retry.Retry, as_master, asyncio.sleep, in_tasks
)


def _client(
    kind: _Kind, url: str, timeout_seconds: float, away_seconds: float, replicas: int
) -> Any:
    address = parse_redis_url(url)
    own: dict[str, Any] = {
        "db": address.database,
        "username": address.username or None,
        "password": address.password or None,
        "ssl": address.tls,
    } | address.tls_options

    def server(node: RedisNode, seconds: float = timeout_seconds, **options: Any) -> Any:
        return _packing_by_hiredis(
            kind.of_server(
                host=node.host,
                port=node.port,
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
                socket_keepalive=True,
                health_check_interval=0,
                protocol=_RESP,
                driver_info=_DRIVER,
                decode_responses=False,
                retry=kind.retry(redis.backoff.NoBackoff(), 0),
                **options,
            )
        )

    quick = min(QUICK_SECONDS, timeout_seconds)
    more = (kind.sleep, kind.together)
    if address.service:
        guards: dict[str, Any] = address.sentinel_options
        connect_to = partial(server, redis_connect_func=kind.as_master, **own)
        ask = partial(server, seconds=quick, **guards)
        router: Router = SentinelRouter(address, connect_to, ask, *more, 0.0, away_seconds)
        client = kind.of_masters(router)
    elif address.is_cluster:
        connect_to, ask = partial(server, **own), partial(server, seconds=quick, **own)
        router = ClusterRouter(address, connect_to, ask, *more, timeout_seconds, away_seconds)
        client = kind.of_masters(router)
    else:
        client = server(address.hosts[0], **own)
    client.replicas = replicas
    return client


def _packed(words: Sequence[Any]) -> bytes:
    """Return the bytes of a command, whose name may be two words."""
    name, *arguments = words
    parts = name.encode().split() if isinstance(name, str) else [name]
    packed: bytes = hiredis.pack_command((*parts, *arguments))
    return packed


class _PacksByHiredis:
    """Packs commands by hiredis, which the library does for synchronous connections only.

    In Python, the many keys of a script cost a drain of 400 triggers a twentieth of its time. All
    commands of a pipeline are sent by one call of the system, where the library makes many: each
    call lets the other threads of the process go first.
    """

    def pack_command(self, *words: Any) -> list[bytes]:
        """Return the bytes of a command."""
        return [_packed(words)]

    def pack_commands(self, commands: Iterable[Sequence[Any]]) -> list[bytes]:
        """Return the bytes of all commands as one piece."""
        return [b"".join(map(_packed, commands))]


def _packing_by_hiredis(client: Any) -> Any:
    """Make the connections of a client pack commands by hiredis; return the client."""
    pool = client.connection_pool
    kind = pool.connection_class
    pool.connection_class = type(kind.__name__, (_PacksByHiredis, kind), {})
    return client


def wait_ready(url: str, seconds: float | None = None, *, replicas: int = 0) -> tuple[str, ...]:
    """Wait for a Redis that is starting or loading, and check that it can be used.

    Args:
        url: The URL, as `connect` takes it.
        seconds: The longest wait; None = `patience_seconds`.
        replicas: The number of replicas that must confirm a write.

    Returns:
        Warnings: where it keeps less than we promise; one sentence each.

    Raises:
        RedisUnavailable: It was not ready in time, or refuses our password.
        RedisMismatch: It is too old, or a Cluster and the URL names none, or no Cluster and it
            names one.
    """
    address = parse_redis_url(url)
    gives_up_at = time.monotonic() + (patience_seconds(url) if seconds is None else seconds)
    with closing(connect(url, timeout_seconds=_LOOK_SECONDS)) as client:
        client.where = address.shown
        while True:
            verdict = _look(client, address, replicas)
            if isinstance(verdict, tuple):
                return verdict
            if time.monotonic() >= gives_up_at:
                raise verdict
            time.sleep(_LOOK_EVERY_SECONDS)


class ServerState(NamedTuple):
    """The state of a server, by which it is judged.

    Attributes:
        where: Its address; "" where there is only one.
        info: The answer to INFO.
        appendfsync: The value that is configured there; None = it is not to be seen.
        takes_writes: False while it can't write to its disk.
    """

    where: str
    info: dict[str, Any]
    appendfsync: str | None
    takes_writes: bool


def ask_how_it_is(client: Redis) -> list[ServerState]:
    """Return the state of each master; only a Cluster has several.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    return [
        ServerState(name, one.info(), _appendfsync(one), takes_writes(one))
        for name, one in client.masters()
    ]


def used_and_most_bytes(client: Redis) -> tuple[int, int]:
    """Return the bytes of memory that are used and allowed (0 = any) on the fullest master.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    told = [one.info("memory") for _, one in client.masters()]
    found = [(int(each["used_memory"]), int(each["maxmemory"])) for each in told]
    return max(found, key=lambda one: one[0] / (one[1] or float("inf")))


def takes_writes(client: Redis) -> bool:
    """Say whether a server that answers takes writes: while its disk fails, it refuses a PING, too.

    Raises:
        RedisUnavailable: It does not answer, or is loading its data.
    """
    with redis_errors(client.where):
        try:
            return bool(client.run_command("PING"))
        except ResponseError as error:
            if str(error).startswith("MISCONF"):
                return False
            raise


def _look(
    client: Redis, address: RedisAddress, replicas: int
) -> tuple[str, ...] | RedisUnavailable:
    """Return warnings about a ready Redis, or why it is not ready yet."""
    try:
        answers = ask_how_it_is(client)
    except RedisUnavailable as error:
        if isinstance(error.__cause__, AuthenticationError):
            raise
        return error
    found: list[str] = []
    for where, info, appendfsync, _ in answers:
        name = where or address.shown
        if unfit := why_unfit(info, address.found_by):
            raise RedisMismatch(f"Redis at {name} can't be used: {unfit}.")
        if reason := why_not_yet(info):
            return RedisUnavailable(f"Redis at {name} can't be used yet: {reason}.")
        weak = weaknesses(info, appendfsync, found_by=address.found_by, replicas=replicas)
        found += (f"Redis at {name}: {warning}" for warning in weak)
    return tuple(found)


def _appendfsync(client: Redis) -> str | None:
    try:
        answer = client.config_get("appendfsync")
    except (NotPermitted, ResponseError):
        return None
    value = next(iter(dict(answer).values()), None)
    return value.decode() if isinstance(value, bytes) else value


def resolve_url(settings: RedisSettings) -> str:
    """Return the URL to connect to; starts the embedded Redis where it is not running.

    Raises:
        RedisUnavailable: The embedded Redis does not start; with what its log says.
    """
    if settings.url != EMBEDDED:
        return settings.url
    files = EmbeddedFiles(settings.data_dir)
    url = files.read_url()
    if url and files.is_locked() and _answers(url):
        return url
    return _started(files)


def resolve_broker_url(settings: RedisSettings) -> str:
    """Return the URL to connect to Celery's broker; see `resolve_url`."""
    return settings.broker_url or resolve_url(settings)


def _answers(url: str) -> bool:
    with closing(connect(url)) as client:
        try:
            takes_writes(client)
        except RedisUnavailable:
            return False
    return True


def _started(files: EmbeddedFiles) -> str:
    """Start the embedded Redis by a process of its own, `ops.embedded`, and return its URL."""
    command = own_module("segrelay.ops.embedded", str(files.data_dir))
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RedisUnavailable(
            f"The embedded Redis of {files.data_dir} did not start; see {files.log}."
        ) from None
    if done.returncode:
        raise RedisUnavailable(done.stderr.decode(errors="replace").strip() or f"See {files.log}.")
    return done.stdout.decode().strip()


def now_us(client: Redis) -> int:
    """Return Redis' time, in microseconds since 1970."""
    seconds, micros = client.time()
    return int(seconds) * 1_000_000 + int(micros)


def now_ms(client: Redis) -> int:
    """Return Redis' time, in milliseconds since 1970."""
    return now_us(client) // 1_000


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

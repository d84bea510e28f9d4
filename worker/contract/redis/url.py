"""Addresses of a Redis, read from URLs: of one server, of Sentinels, or of a Cluster.

    redis://USER:PASSWORD@HOST:PORT/DATABASE
    redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT,HOST:PORT/SERVICE/DATABASE
        ?sentinel_username=USER&sentinel_password=PASSWORD
    redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT

With `rediss` in the place of `redis`, all connections are encrypted, to Sentinels also. They are
read here and not by the client library: there a query such as `?retry=3` wins over what the code
says, and a command that was repeated unasked is counted twice.

The embedded Redis is found by files in its data directory. The server inherits the lock of the one
who starts it and holds it as long as it lives, so that the lock says whether one runs over the
directory, after a crash and a reboot too. No process id does.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeVar, cast
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from segrelay.worker.contract.settings.urls import masked
from segrelay.worker.contract.settings.values import REDIS_SCHEMES
from segrelay.worker.errors import (
    ConfigurationInvalid,
    OperationsMustAct,
    RedisUnavailable,
    SealedAnew,
)

FoundBy = Literal["", "sentinel", "cluster"]
"""The way to find the master: at its own address, through Sentinels, or in a Cluster."""

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_CHECK: Final = "ssl_check_hostname"
_TLS_OPTIONS: Final = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", _CHECK)
_SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")
_CERT_REQS: Final = ("required", "optional", "none")
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "yes": True, "false": False, "no": False}


class RedisNode(NamedTuple):
    """The host and port at which this machine reaches a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of a Redis and its credentials.

    Args:
        hosts: The hosts and ports; several only for Sentinels and a Cluster.
        service: The name under which the Sentinels know the master; empty without Sentinel.
        options: The `ssl_…` and `sentinel_…` values of the query, as written.
        found_by: The way to find the master, see `FoundBy`.
    """

    hosts: tuple[RedisNode, ...]
    database: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: bool = False
    service: str = ""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    found_by: FoundBy = ""

    @property
    def is_cluster(self) -> bool:
        """Say whether the hosts are nodes of a Cluster."""
        return self.found_by == "cluster"

    @property
    def shown(self) -> str:
        """The address as a message may show it, without user and password."""
        hosts = ",".join(map(str, self.hosts))
        if self.is_cluster:
            return f"the Cluster {hosts}"
        return f"{self.service} of the Sentinels {hosts}" if self.service else hosts

    @property
    def tls_options(self) -> dict[str, str | bool]:
        """The client library's options for TLS."""
        found: dict[str, str | bool] = {}
        for name, value in self.options.items():
            if name in _TLS_OPTIONS:
                found[name] = _BOOLEANS[value.lower()] if name == _CHECK else value
        return found

    @property
    def sentinel_options(self) -> dict[str, str | bool]:
        """Return the client library's options for connecting to Sentinels: credentials and TLS."""
        found: dict[str, str | bool] = {
            name.removeprefix("sentinel_"): value
            for name, value in self.options.items()
            if name.startswith("sentinel_")
        }
        return found | self.tls_options | {"ssl": True} if self.tls else found


def parse_redis_url(url: str) -> RedisAddress:
    """Read the URL of a Redis.

    Raises:
        ConfigurationInvalid: With what is wrong with it; never with its password.
    """
    try:
        return _address(_split(url))
    except ValueError as problem:
        raise ConfigurationInvalid(f"redis.url: {masked(url)}: {problem}") from None


def found_by(url: str) -> FoundBy:
    """Return how the master is found that a URL, or `embedded`, names."""
    return cast("FoundBy", url.partition("://")[0].partition("+")[2])


def broker_url_of(address: RedisAddress) -> str:
    """Write an address the way Celery reads it."""
    user = ""
    if address.username or address.password:
        user = f"{quote(address.username, safe='')}:{quote(address.password, safe='')}@"
    hosts = [str(host) for host in address.hosts]
    if address.service:
        return ";".join(f"sentinel://{user}{host}/{address.database}" for host in hosts)
    if not address.tls:
        return f"redis://{user}{hosts[0]}/{address.database}"
    # Without any ssl_… in the query Celery's transport would talk plain TCP to a rediss:// URL.
    options = {"ssl_cert_reqs": "required"} | address.tls_options
    return f"rediss://{user}{hosts[0]}/{address.database}?{urlencode(options)}"


def _split(url: str) -> SplitResult:
    """Split a URL whose hosts may be several; `urlsplit` takes brackets around the first only."""
    scheme, _, rest = url.strip().partition("://")
    hosts = re.split("[/?#]", rest, maxsplit=1)[0]
    return urlsplit(f"{scheme}://{rest[len(hosts) :]}")._replace(netloc=hosts)


def _address(parts: SplitResult) -> RedisAddress:
    if parts.scheme not in REDIS_SCHEMES:
        raise ValueError(f"write {', '.join(f'{scheme}://' for scheme in REDIS_SCHEMES)}")
    if parts.fragment or "@" in parts.path:
        raise ValueError("a # or / in the password is written as %23 or %2F")
    base, _, guard = parts.scheme.partition("+")
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    port = _SENTINEL_PORT if guard == "sentinel" else _PORT
    found = tuple(_host(word.strip(), port) for word in hosts.split(","))
    if len(found) > 1 and not guard:
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
    words = [unquote(word) for word in parts.path.strip("/").split("/") if word]
    if guard == "cluster" and words not in ([], ["0"]):
        raise ValueError("a Cluster has no databases: leave out what follows the hosts")
    if guard == "sentinel" and not words:
        raise ValueError("name the master: redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/0")
    service = words.pop(0) if guard == "sentinel" else ""
    database = words or ["0"]
    if len(database) > 1 or not (database[0].isascii() and database[0].isdigit()):
        raise ValueError("the path ends with the number of a database, e.g. /0")
    return RedisAddress(
        hosts=found,
        database=int(database[0]),
        username=unquote(username),
        password=unquote(password),
        tls=base == "rediss",
        service=service,
        options=_options(parts, base, guard),
        found_by=cast("FoundBy", guard),
    )


def _host(text: str, default_port: int) -> RedisNode:
    parts = urlsplit(f"//{text}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if not parts.hostname or port == 0:
        raise ValueError("a host is written as HOST or HOST:PORT")
    return RedisNode(parts.hostname, port or default_port)


def _options(parts: SplitResult, base: str, guard: str) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = (_TLS_OPTIONS if base == "rediss" else ()) + (
        _SENTINEL_OPTIONS if guard == "sentinel" else ()
    )
    for name in options:
        if name not in known:
            allowed = ", ".join(known) or "nothing"
            raise ValueError(f"?{name}= is not known here; {parts.scheme}:// takes {allowed}")
    if options.get("ssl_cert_reqs", "none") not in _CERT_REQS:
        raise ValueError(f"ssl_cert_reqs is one of {', '.join(_CERT_REQS)}")
    if options.get(_CHECK, "no").lower() not in _BOOLEANS:
        raise ValueError(f"{_CHECK} is true or false")
    return options


def patience_seconds(url: str) -> float:
    """Return how long a command waits for a Redis that is away."""
    return FAILOVER_SECONDS if parse_redis_url(url).found_by else READY_SECONDS


ANY_SANDBOX: Final = "1"
"""In place of the URL of a sandbox, where it is not known or is the default."""


class EmbeddedFiles:
    """The names of the files in a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.lock = data_dir / "redis.lock"
        """The lock file: locked while a server runs or is being started; never removed."""
        self.sandbox_run = data_dir / "sandbox.lock"
        """The lock file of `segrelay up --sandbox`, with the URL of its sandbox; never removed.

        The server's lock would not do: the server outlives an `up` that is killed.
        """
        self.url = data_dir / "redis.url"
        """The file with the URL and its password, readable by its owner alone."""
        self.config = data_dir / "redis.conf"
        """The configuration file of the embedded server, readable by its owner alone."""
        self.log = data_dir / "redis.log"
        """The server's log."""
        self.pid = data_dir / "redis.pid"
        """The server's process id, written by the server."""

    def read_url(self) -> str:
        """Return the URL that was last in use; empty where none was yet."""
        try:
            return self.url.read_text(encoding="ascii").strip()
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return ""

    def is_locked(self) -> bool:
        """Say whether a server runs over the directory, or is being started."""
        return _is_locked(self.lock)

    def previewed_at(self) -> str:
        """Return the URL of the sandbox of the sandbox run that runs over the directory, or ""."""
        try:
            if not _is_locked(self.sandbox_run):
                return ""
            return self.sandbox_run.read_text(encoding="ascii").strip() or ANY_SANDBOX
        except PermissionError:  # the directory of another user, who has a sandbox run of their own
            return ""


def _is_locked(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


READY_SECONDS: Final = 10.0
"""Seconds that a command waits for a Redis that is starting or loading."""
FAILOVER_SECONDS: Final = 60.0
"""Seconds that a command waits for a new master: Sentinels notice a loss after 30 s."""

Answered = TypeVar("Answered")


def repeat_until_confirmed(
    action: Callable[[], Answered],
    wait: Callable[[str], None],
    *,
    away_seconds: float = FAILOVER_SECONDS,
    also: tuple[type[OperationsMustAct], ...] = (),
) -> Answered:
    """Repeat an action until Redis has confirmed it; an action has to be safe to repeat.

    Args:
        action: The action; an attempt that has worked for longer than `away_seconds` begins a new
            wait.
        wait: A function that waits a moment, and shows its message to whoever watches.
        away_seconds: The time for which Redis may be away.
        also: Further errors after which the action is repeated.

    Raises:
        RedisUnavailable: It was away for too long.
        SealedAnew: Another attempt would meet the same.
    """
    errors: tuple[type[OperationsMustAct], ...] = (RedisUnavailable, *also)
    away_since = math.inf
    while True:
        begun = time.monotonic()
        try:
            return action()
        except errors as error:
            now = time.monotonic()
            waited = error.waited_seconds if isinstance(error, RedisUnavailable) else 0.0
            has_worked = now - begun - waited > away_seconds
            away_since = now - waited if has_worked else min(away_since, now - waited)
            if isinstance(error, SealedAnew):
                raise
            if now - away_since >= away_seconds:
                if isinstance(error, RedisUnavailable):
                    error.waited_seconds = now - away_since  # whoever repeats all of it, ends too
                raise
            message = error.message
        wait(message)

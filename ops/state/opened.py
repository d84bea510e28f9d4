"""The means of a command: the configuration, a connection to Redis, and scripts.

Also records of an operator's acts, with the operator's name, and arguments without addresses.
"""

from __future__ import annotations

import getpass
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Self

import typer

from segrelay.ops.embedded import (
    LEAST_FREE_BYTES,
    EmbeddedRedis,
    find,
    why_full,
)
from segrelay.ops.terminal.console import confirmed, mention, progress
from segrelay.ops.terminal.options import Yes
from segrelay.worker.contract.printable import printable
from segrelay.worker.contract.redis.acts import BEGUN, BROKEN_OFF, DONE, Act, note_act
from segrelay.worker.contract.redis.claim import compare
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url, wait_ready
from segrelay.worker.contract.redis.scripts import ScriptCall, load_script, run_each
from segrelay.worker.contract.redis.url import (
    Answered,
    EmbeddedFiles,
    patience_seconds,
    repeat_until_confirmed,
)
from segrelay.worker.contract.settings import (
    REAL,
    SANDBOX_VARIABLE,
    Settings,
    load_settings,
    sandbox_data_dir,
)
from segrelay.worker.contract.settings.values import EMBEDDED
from segrelay.worker.errors import (
    LeaseLost,
    OperationsMustAct,
    RedisUnavailable,
    SealedAnew,
    UsageWrong,
)

_LOOK_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.3
_TOLD_AGAIN_SECONDS: Final = 5.0


def load_for_redis(*, stays: bool = False) -> Settings:
    """Load the configuration of a command that works on Redis.

    Args:
        stays: Keep the decision for the real Redis in the environment: what a process that runs for
            long starts again works on it too, also if a sandbox run has begun meanwhile.

    Raises:
        ConfigurationInvalid: With every problem.
        UsageWrong: A sandbox runs here, and nobody has said that the real Redis is meant.
    """
    settings = load_settings()
    if os.environ.get(SANDBOX_VARIABLE, "").strip():
        return settings
    data_dir = settings.redis.data_dir
    url = EmbeddedFiles(sandbox_data_dir(data_dir)).previewed_at()
    if not url:
        if stays:
            os.environ[SANDBOX_VARIABLE] = REAL
        return settings
    raise UsageWrong(
        f"A sandbox runs in {settings.folder}, and this command would work on the real Redis."
        f" `export {SANDBOX_VARIABLE}={url}` lets this terminal take part in the sandbox run."
        f" With --real, or {SANDBOX_VARIABLE}={REAL}, the command works on the real Redis."
    )


@contextmanager
def opened(
    *, ready_seconds: float | None = None, patient: bool = True
) -> Iterator[tuple[Settings, Redis]]:
    """Load the configuration, wait for Redis, and connect to it.

    Args:
        ready_seconds: The longest wait; None = the usual time.
        patient: True if it waits as long again whenever Sentinels name no master.

    Raises:
        ConfigurationInvalid: With every problem.
        UsageWrong: See `load_for_redis`.
        RedisUnavailable: Redis was not ready in time.
        RedisMismatch: It is in use with another format, partition count or identity.
    """
    settings = load_for_redis()
    url = resolve_url(settings.redis)
    wait_seconds = patience_seconds(url) if ready_seconds is None else ready_seconds
    wait_ready(url, wait_seconds)
    with compared(settings, url, wait_seconds, patient=patient) as client:
        yield settings, client


@contextmanager
def compared(
    settings: Settings, url: str, wait_seconds: float, *, patient: bool
) -> Iterator[Redis]:
    """Compare the configuration with a Redis that was ready just now, and connect to it.

    Args:
        settings: The configuration.
        url: The URL, as `connect` takes it.
        wait_seconds: The longest wait for another master, if its master was lost since then.
        patient: True if it waits as long again whenever Sentinels name no master.

    Raises:
        RedisUnavailable: There was no other master in time.
        RedisMismatch: It is in use with another format, partition count or identity.
    """
    with closing(connect(url, away_seconds=wait_seconds)) as client:
        compare(client, settings)
    away_seconds = patience_seconds(url) if patient else 0.0
    with closing(
        connect(url, away_seconds=away_seconds, replicas=settings.redis.replicas)
    ) as client:
        yield client


def insist(
    action: Callable[[], Answered], *, also: tuple[type[OperationsMustAct], ...] = ()
) -> Answered:
    """Repeat a step of a command while Redis is away, and tell the person who waits.

    Args:
        action: The step, which is safe to repeat: nobody knows how much of it took effect.
        also: Further errors after which it is repeated.

    Raises:
        RedisUnavailable: It was away for a minute.
    """
    told_at = -math.inf

    def wait(message: str) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TOLD_AGAIN_SECONDS:
            told_at = time.monotonic()
            mention(f"waiting: {message}")
        time.sleep(_PAUSE_SECONDS)

    return repeat_until_confirmed(action, wait, also=also)


@contextmanager
def already_there() -> Iterator[tuple[Settings, Redis]]:
    """Load the configuration, and connect to Redis, which has to run and be ready already."""
    settings = load_for_redis()
    url = settings.redis.url
    if url == EMBEDDED:
        url = running_server(settings.redis.data_dir).url
    wait_ready(url, _LOOK_SECONDS)
    with closing(connect(url, timeout_seconds=_LOOK_SECONDS)) as client:
        compare(client, settings)
        yield settings, client


def running_server(data_dir: Path, least_free_bytes: int = LEAST_FREE_BYTES) -> EmbeddedRedis:
    """Return the embedded Redis that runs.

    Raises:
        RedisUnavailable: None does; a full disk is named, because it ends the server.
    """
    server = find(data_dir)
    if server is None:
        full = why_full(data_dir, least_free_bytes)
        raise RedisUnavailable(
            f"The embedded Redis of {data_dir} is not running, or not ready yet"
            + (f": {full}." if full else "; `segrelay up` starts it with everything else,")
            + ("" if full else " `segrelay redis start` alone.")
        )
    return server


FOLDER: Final = Path(__file__).parent / "lua"


@cache
def source(name: str) -> str:
    """Return the text of a script, with the parts of the worker's scripts that it includes."""
    return load_script(name, FOLDER)


def run(
    client: Redis, name: str, calls: Sequence[ScriptCall], *, replicated: bool = False
) -> list[Any]:
    """Run a script once for each call; each call is atomic, all together are not.

    Raises:
        RedisUnavailable: Some calls may have been made, others not.
        NotReplicated: All were made, and too few replicas have confirmed them.
    """
    return run_each(client, source(name), calls, replicated=replicated)


EXPORTED_FILE: Final = "exported to"
"""Name of the argument of an act that holds the path of an export with people's data."""
ACTOR_VARIABLE: Final = "SEGRELAY_ACTOR"
LONGEST_ACTOR: Final = 100
LONGEST_REASON: Final = 500
"""Largest number of characters of a reason, which is shown in messages and in tables."""
_MASK: Final = "•••"
_ADDRESS: Final = re.compile(r"[^\s@<>,;:=\"']+@[^\s@<>,;\"']+|\+\d[\d ()/-]{5,}\d")
_MAIL: Final = re.compile(r"([^\s@<>,;:=\"']+)@[^\s@<>,;\"']+")
_PERSONAL: Final = frozenset({"profile", "person"})
"""Names of arguments whose values identify a person."""


def _reason(given: str) -> str:
    """Return a reason without the addresses and the control characters that stand in it."""
    if len(given) > LONGEST_REASON:
        raise UsageWrong(
            f"The reason has {len(given):,} characters; at most {LONGEST_REASON} are kept."
            " Nothing was done; give a shorter one."
        )
    return masked(printable(given))


Why = Annotated[
    str,
    typer.Option(help="Say why; `segrelay audit` keeps it.", metavar="TEXT", callback=_reason),
]


@dataclass(frozen=True, slots=True)
class Reads:
    """The configuration and a connection, for a command that works on Redis.

    Args:
        command: The words of the command without `segrelay`, such as `dlq replay`.
    """

    command: str
    settings: Settings
    client: Redis

    @classmethod
    @contextmanager
    def opened(cls, command: str, **options: Any) -> Iterator[Self]:
        """Load the configuration and connect, as `segrelay.ops.state.opened.opened` does."""
        with opened() as (settings, client):
            yield cls(command, settings, client, **options)


@dataclass(frozen=True, slots=True)
class Acts(Reads):
    """The configuration and a connection, for a command whose act the audit keeps."""

    why: Why = ""

    def act(self, subject: str = "", **arguments: Any) -> Act:
        """Return the act of the command that runs."""
        return act_of(self.command, subject, reason=self.why, arguments=arguments)


@dataclass(frozen=True, slots=True)
class Asks(Acts):
    """The configuration and a connection, for a command that asks before it does something."""

    yes: Yes = False

    def confirm(self, question: str) -> None:
        """Ask the person at the terminal, unless --yes was given.

        Raises:
            Abort: The answer is no.
        """
        confirmed(question, yes=self.yes)


@dataclass(slots=True)
class Doing:
    """An act of many steps that is under way, with its count, over all attempts."""

    count: int = 0

    def counted(self, label: str, steps: Iterable[int], total: int) -> int:
        """Run the steps, show their progress, and return how many there were until now."""
        if total:
            with progress(label, total) as shown:
                for step in steps:
                    self.count += step
                    shown(step)
        return self.count


def actor() -> str:
    """Return the name of the person at this terminal: $SEGRELAY_ACTOR, or user and host."""
    named = actor_named(os.environ.get(ACTOR_VARIABLE, ""))
    if named:
        return named
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return socket.gethostname()


def actor_named(text: str) -> str:
    """Return a name as acts record it: of an email address, only the part before the @.

    It still tells colleagues apart, and is shown in chats and tables.
    """
    line = "".join(filter(str.isprintable, " ".join(text.split())))
    return masked(_MAIL.sub(r"\1", line))[:LONGEST_ACTOR]


def act_of(
    what: str, subject: str = "", *, reason: str = "", arguments: Mapping[str, Any] | None = None
) -> Act:
    """Return an act of the person at this terminal; addresses in it are masked."""
    return Act(
        what,
        actor(),
        masked(subject),
        reason=masked(reason),
        arguments={
            name: _MASK if name in _PERSONAL else masked(_text(value))
            for name, value in (arguments or {}).items()
            if value
        },
        key=secrets.token_hex(8),
    )


def perform(
    client: Redis,
    act: Act,
    steps: Callable[[Doing], Answered],
    *,
    is_counted: bool = True,
) -> Answered:
    """Do an act of many steps; record it before the first one, and at the end with its count.

    Args:
        client: Redis.
        act: The act.
        steps: A function that does all of it. It is called again if Redis was away meanwhile, and
            then goes on from wherever it was interrupted.
        is_counted: True if the act says to how many things it was done.

    Raises:
        RedisUnavailable: Redis was away for too long; the message says what to do.
    """
    name = insist(lambda: note_act(client, replace(act, outcome=BEGUN)))
    doing = Doing()

    def end(outcome: str) -> None:
        count = doing.count if is_counted else None
        note_act(client, replace(act, outcome=outcome, count=count, ends=name))

    try:
        result = insist(lambda: steps(doing), also=(LeaseLost,))
    except RedisUnavailable as error:
        if isinstance(error, SealedAnew):
            end(BROKEN_OFF)
            raise
        words = f"segrelay {act.what} {act.subject}".rstrip()
        # It stays as begun: keeping more would wait for Redis as long again.
        raise RedisUnavailable(
            f"{error.message} `{words}` is not finished. What is done stays done: give the"
            " same command again once Redis is back."
        ) from error
    except BaseException:
        with suppress(RedisUnavailable):
            end(BROKEN_OFF)
        raise
    insist(lambda: end(DONE))
    return result


def masked(text: str) -> str:
    """Return a text with its email addresses and telephone numbers masked."""
    return _ADDRESS.sub(_MASK, text)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

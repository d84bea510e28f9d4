"""Opening the configuration and a connection to Redis, as commands do, and running their scripts.

Also the sign of life of Flower and of the metrics, by which `status` notices that they are gone.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from segrelay.ops.embedded import (
    LEAST_FREE_BYTES,
    EmbeddedRedis,
    find,
    why_full,
)
from segrelay.ops.terminal.console import mention
from segrelay.worker.contract.processes import tell_seen
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
from segrelay.worker.errors import OperationsMustAct, RedisUnavailable, UsageWrong

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
        patient: Wait as long again whenever Sentinels name no master.

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
        url: See `connect`.
        wait_seconds: The longest wait for another master, if its master was lost since then.
        patient: See `opened`.

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
        action: Safe to repeat, since nobody knows how much of it took effect.
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


EVERY_SECONDS: Final = 5.0
_TIMEOUT_SECONDS: Final = 2.0


@contextmanager
def seen_as(kind: str, url: str) -> Iterator[None]:
    """Report to Redis from a thread, until the context ends, that Flower or the metrics run.

    While Redis can't be reached, nothing is told.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_tell, args=(kind, url, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _tell(kind: str, url: str, ended: threading.Event) -> None:
    with closing(connect(url, timeout_seconds=_TIMEOUT_SECONDS)) as client:
        while True:
            with suppress(RedisUnavailable):
                tell_seen(client, kind)
            if ended.wait(EVERY_SECONDS):
                return


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

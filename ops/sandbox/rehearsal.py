"""A rehearsal: its mark, what it forgets of earlier ones, and endpoints' demands.

Its mark is a lock, which ends with `segrelay up --sandbox` however that ends.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from redis import Redis

from ops.embedded.launch import locked, prepared, usable
from ops.embedded.lifecycle import find, stop
from ops.sandbox.settings import EndpointRules
from ops.state.partitions import all_partitions, ask_each
from worker.contract.processes.workers import processes_here
from worker.contract.redis.connection import connect, redis_errors, resolve_url, wait_ready
from worker.contract.redis.embedded_files import ANY_SANDBOX, EmbeddedFiles
from worker.contract.redis.scanning import scan_keys
from worker.contract.settings import Destination, Settings
from worker.contract.settings.http import Signature
from worker.errors import OperationsMustAct

_PATTERNS: Final = (
    ("l*", "string"),  # ledgers
    ("sync:*", "hash"),
    ("who", "hash"),
    ("reached", "zset"),
)
"""Patterns and types of a partition's keys that are about people at the sandbox; other keys may
match a pattern, but have another type."""

_REDIS_DATA: Final = "appendonlydir"
_MARK_SECONDS: Final = 1.0
_MARK_AGAIN_SECONDS: Final = 0.02


@contextmanager
def rehearsing(settings: Settings, url: str) -> Iterator[None]:
    """Mark that a rehearsal runs, so that no other command takes the real Redis by mistake.

    Raises:
        OperationsMustAct: Another rehearsal runs over it.
    """
    files = prepared(settings.redis.data_dir)
    with _marked(files, url):
        yield


@contextmanager
def _marked(files: EmbeddedFiles, url: str) -> Iterator[None]:
    gives_up_at = time.monotonic() + _MARK_SECONDS  # whoever looks at the lock holds it meanwhile
    while True:
        with locked(files.rehearsal) as mark:
            if mark is not None:
                os.ftruncate(mark, 0)
                os.pwrite(mark, f"{url}\n".encode(), 0)
                yield
                return
        if time.monotonic() >= gives_up_at:
            raise OperationsMustAct(
                f"A rehearsal runs over {files.data_dir} already, with the sandbox"
                f" {files.rehearsed_at()}: end its `segrelay up --sandbox` first."
            )
        time.sleep(_MARK_AGAIN_SECONDS)


def forget_rehearsal(settings: Settings) -> bool:
    """End the Redis of a rehearsal that has ended, and delete all that it holds.

    Args:
        settings: Those of the rehearsal.

    Returns:
        False if there was nothing.

    Raises:
        OperationsMustAct: The rehearsal runs, or something still works on it.
    """
    files = EmbeddedFiles(settings.redis.data_dir.absolute())
    if not files.lock.exists():
        return False
    with _marked(files, ANY_SANDBOX):
        _refuse_used(files.data_dir)
        stop(files.data_dir)
        with locked(files.lock) as lock, usable(files):
            if lock is None:
                raise OperationsMustAct(
                    f"Something starts the Redis of {files.data_dir} again and again: end what"
                    " works on the rehearsal first."
                )
            return _delete_data(files)


def _refuse_used(data_dir: Path) -> None:
    server = find(data_dir)
    if server is None:
        return
    with closing(connect(server.url)) as client:
        here = processes_here(client)
    if here:
        ids = " ".join(str(one.pid) for one in here)
        raise OperationsMustAct(
            f"The rehearsal in {data_dir} is in use by our processes: `kill {ids}` ends them."
        )


def _delete_data(files: EmbeddedFiles) -> bool:
    """Delete the data and the log; a lock that was deleted would keep nobody out."""
    folder = files.data_dir / _REDIS_DATA
    there = folder.is_dir()
    if there:
        shutil.rmtree(folder)
    for each in (*files.data_dir.glob("*.rdb"), *files.data_dir.glob(f"{files.log.name}*")):
        each.unlink(missing_ok=True)
    return there


def forget_people(settings: Settings) -> int:
    """Forget the people of an earlier sandbox; waiting deliveries stay, and go to the new one.

    Returns:
        How many ledgers and lists of members there were.
    """
    url = resolve_url(settings.redis)
    wait_ready(url)
    with closing(connect(url)) as client, redis_errors():
        unlinked = (
            ask_each(client, keys, lambda pipe, key: pipe.unlink(key))
            for keys in _keys(client, settings)
        )
        return sum(map(sum, unlinked))


def endpoints_of(settings: Settings) -> dict[str, EndpointRules]:
    """Return the demands that each `http` destination of a rehearsal makes on its requests."""
    return {
        name: EndpointRules(token=_uses_token(settings, one), sign=_signatures(settings, one))
        for name, one in settings.destinations.items()
        if one.api == "http"
    }


def _uses_token(settings: Settings, destination: Destination) -> bool:
    authorization = settings.authorization_of(destination)
    return authorization is not None and authorization.uses_token


def _signatures(settings: Settings, destination: Destination) -> tuple[Signature, ...]:
    """Return the signatures of a destination's triggers; none if one of them does not sign."""
    signs = [settings.http_of(one).sign for one in settings.triggers_of(destination.name)]
    different = [sign for at, sign in enumerate(signs) if sign and sign not in signs[:at]]
    return tuple(different) if all(signs) else ()


def _keys(client: Redis, settings: Settings) -> Iterator[list[bytes]]:
    places = all_partitions(client, settings)
    for pattern, kind in _PATTERNS:
        yield from scan_keys(client, places, pattern, kind)

"""Servers of a Cluster or of Sentinels on this machine: starting, asking and awaiting them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import redis.exceptions

from ops.embedded.launch import LOOPBACK, find_server
from ops.terminal.moments import awaited
from worker.errors import RedisUnavailable


def start(config: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a Redis server; only the user who starts it may read the files that it writes."""
    return subprocess.Popen(
        [find_server(), config, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        umask=0o077,
    )


def ask(port: int, password: str, *words: Any) -> Any:
    """Send a command and return the raw answer, which the client would convert."""
    connection: Any = redis.Connection(  # type: ignore[no-untyped-call]
        LOOPBACK, port, password=password, socket_timeout=5.0, protocol=2, driver_info=None
    )
    try:
        connection.send_command(*words)
        return connection.read_response()
    finally:
        connection.disconnect()


def answers(port: int, password: str) -> bool:
    """Say whether the server at a port answers to PING."""
    try:
        return bool(ask(port, password, "PING"))
    except redis.exceptions.RedisError:
        return False


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition is true; raise an error that names `what` after `seconds`."""
    if not awaited(condition, seconds):
        raise RedisUnavailable(f"Waited {seconds:g} s for {what} in vain.")

"""The embedded Redis: a Valkey with an append-only file in a data directory.

Whoever needs it first starts it, in a session of its own; all others find it. One lock settles who
starts: the server inherits it and holds it until it ends, so that two servers never write into one
directory, whatever was killed in between.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import redis.exceptions

from ops.embedded.launch import (
    LOOPBACK,
    begin_log,
    locked,
    log_since,
    next_launch,
    prepared,
    start_server,
    tail,
    usable,
)
from ops.terminal.moments import awaited
from worker.contract.patience import READY_SECONDS
from worker.contract.redis.connection import connect, takes_writes
from worker.contract.redis.embedded_files import EmbeddedFiles
from worker.contract.redis.url import parse_redis_url
from worker.errors import ConfigurationInvalid, RedisUnavailable

STOP_SECONDS: Final = 10.0

_LOOK_SECONDS: Final = 1.0
_LOOK_EVERY_SECONDS: Final = 0.02
_ASK_EVERY_SECONDS: Final = 0.5
_KILL_SECONDS: Final = 5.0
_MOST_STARTS: Final = 5
"""The number of starts, each on another port: a free port can be taken a moment later."""
_PORT_TAKEN: Final = "Address already in use"


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """An embedded Redis that runs.

    Args:
        started_by_us: The call that returned this has started it, and may stop it.
    """

    url: str = field(repr=False)
    pid: int
    started_by_us: bool = False


def ensure_running(
    data_dir: Path, *, wait_seconds: float = READY_SECONDS, max_memory: str = ""
) -> EmbeddedRedis:
    """Return the running server of a data directory; start it first if it does not run.

    Args:
        data_dir: Made, for its owner alone, if it is not there.
        wait_seconds: The longest wait for a server that starts or loads its data.
        max_memory: The limit, such as `64mb`, of a server that this call starts.

    Raises:
        RedisUnavailable: It does not start or is not ready in time; with the end of its log.
        OperationsMustAct: The directory can't be used, or there is no server to start.
    """
    files = prepared(data_dir)
    with usable(files):
        return _ensured(files, time.monotonic() + wait_seconds, max_memory)


def _ensured(files: EmbeddedFiles, gives_up_at: float, max_memory: str) -> EmbeddedRedis:
    launched: list[int] = []
    while True:
        state = _probe(files)
        if isinstance(state, EmbeddedRedis):
            return replace(state, started_by_us=bool(launched))
        if state is None:
            if launched:
                _refuse_to_repeat(files, launched)
            launched += _launch(files, max_memory)
        elif time.monotonic() >= gives_up_at:
            raise RedisUnavailable(_not_ready(files, state))
        else:
            time.sleep(_LOOK_EVERY_SECONDS)


def _launch(files: EmbeddedFiles, max_memory: str) -> list[int]:
    """Start a server, and return where in the log its lines begin.

    The list is empty if another process is starting a server.

    From then on the server alone holds the lock: once it is free, the server has ended.

    Returns:
        Where in the log its lines begin.
    """
    with locked(files.lock) as lock:
        if lock is None:
            return []
        log_start = begin_log(files)
        start_server(files, lock, next_launch(files, max_memory))
        return [log_start]


def _refuse_to_repeat(files: EmbeddedFiles, launched: list[int]) -> None:
    """Raise, unless a start failed only because its port was taken and another one may be tried."""
    said = log_since(files, launched[-1])
    if _PORT_TAKEN in said and len(launched) < _MOST_STARTS:
        return
    raise RedisUnavailable(
        f"The embedded Redis of {files.data_dir} does not start:"
        f" {tail(said) or f'it ended and wrote nothing into {files.log}'}"
    )


def find(data_dir: Path) -> EmbeddedRedis | None:
    """Return the server of a data directory if it runs and answers."""
    state = _probe(EmbeddedFiles(data_dir.absolute()))
    return state if isinstance(state, EmbeddedRedis) else None


def stop(data_dir: Path, *, wait_seconds: float = STOP_SECONDS) -> bool:
    """End the server of a data directory, and wait for its end.

    Returns:
        False if none was running.
    """
    files = EmbeddedFiles(data_dir.absolute())
    if not files.is_locked():
        return False
    gives_up_at = time.monotonic() + wait_seconds
    while time.monotonic() < gives_up_at:
        _ask_to_end(files)  # again and again: it may have been starting
        if _ends_within(files, _ASK_EVERY_SECONDS):
            return True
    pid = _pid_on_file(files)
    if not pid or not _is_ours(pid, files):
        raise RedisUnavailable(
            f"The embedded Redis of {files.data_dir} does not end; look for process"
            f" {pid or 'valkey-server'} with ps, and end it with kill."
        )
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if not _ends_within(files, _KILL_SECONDS):
        raise RedisUnavailable(f"The embedded Redis, process {pid}, was killed and does not end.")
    return True


def _probe(files: EmbeddedFiles) -> EmbeddedRedis | str | None:
    """Return the running server if it is ready, the reason if it is not, or None if none runs."""
    if not files.is_locked():
        return None
    url = files.read_url()
    if not url:
        return f"{files.url} is missing"
    try:
        client = connect(url, timeout_seconds=_LOOK_SECONDS)
    except ConfigurationInvalid:
        return f"{files.url} is damaged"
    with closing(client):
        try:
            pid = int(client.info("server")["process_id"])
            takes_writes(client)
        except redis.exceptions.BusyLoadingError:
            return "it is loading its data"
        except redis.exceptions.RedisError:
            return "it does not answer"
    return EmbeddedRedis(url, pid)


def _ask_to_end(files: EmbeddedFiles) -> None:
    url = files.read_url()
    if not url:
        return
    with (
        suppress(redis.exceptions.RedisError, ConfigurationInvalid),
        closing(connect(url, timeout_seconds=_LOOK_SECONDS)) as client,
    ):
        client.execute_command("SHUTDOWN", "NOSAVE", "FORCE")  # type: ignore[no-untyped-call]


def _ends_within(files: EmbeddedFiles, seconds: float) -> bool:
    return awaited(lambda: not files.is_locked(), seconds, _LOOK_EVERY_SECONDS)


def _pid_on_file(files: EmbeddedFiles) -> int:
    try:
        return int(files.pid.read_text("utf-8"))
    except (OSError, ValueError):
        return 0


def _is_ours(pid: int, files: EmbeddedFiles) -> bool:
    """Say whether a process is the embedded server: its command line has the server's address."""
    with suppress(ConfigurationInvalid):
        port = parse_redis_url(files.read_url()).hosts[0][1]
        command = _command_line(pid)
        return "-server" in command and f"{LOOPBACK}:{port}" in command
    return False


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        pass
    try:
        done = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)],  # noqa: S607 - where there is no /proc
            capture_output=True,
            errors="replace",
            check=False,
            encoding="utf-8",
        )
    except OSError:
        return ""
    return done.stdout


def _not_ready(files: EmbeddedFiles, reason: str) -> str:
    pid = _pid_on_file(files)
    process = f" (process {pid})" if pid else ""
    return (
        f"The embedded Redis of {files.data_dir}{process} is not ready: {reason}."
        f" Its log is {files.log}."
    )

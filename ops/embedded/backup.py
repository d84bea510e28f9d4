"""Backups: a file with all that a Redis holds, and its return into the embedded one.

The file is what a server sends to a new replica (an RDB): the state of one moment, taken while
everything runs, over our own connection. No setting is changed for it, so that a process which is
killed leaves nothing behind.

A restore writes new files beside those of the append-only file, and switches by the one rename of
its manifest. What was there before goes into a folder of its own, once the server has loaded the
backup; if it can't load it, what was there before is back.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from segrelay.ops.embedded.lifecycle import (
    EmbeddedRedis,
    ensure_running,
    locked,
    prepared,
    stop,
    usable,
    write_private,
)
from segrelay.ops.terminal.console import private_file
from segrelay.worker.contract.keys import FORMAT
from segrelay.worker.contract.redis.client import Redis, ResponseError
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.redis.url import EmbeddedFiles
from segrelay.worker.errors import OperationsMustAct, RedisUnavailable, UsageWrong

FOLDER: Final = "appendonlydir"
MANIFEST: Final = "appendonly.aof.manifest"
_MAGIC: Final = (b"REDIS", b"VALKEY")
_SILENCE_SECONDS: Final = 60.0
"""The time in which a server that prepares its data sends at least an empty line."""
_PIECE_BYTES: Final = 1_048_576
_MARK_BYTES: Final = 40
_INCREMENT: Final = re.compile(r"appendonly\.aof\.(\d+)\.incr\.aof")


def back_up(client: Redis, path: Path, tell: Callable[[int], None]) -> int:
    """Write all that a Redis holds into a new file, which is there completely or not at all.

    Args:
        client: Of one server, or behind Sentinels.
        path: The file; only its owner may read it.
        tell: Called with the number of bytes of each piece.

    Returns:
        The size in bytes.

    Raises:
        OperationsMustAct: It refuses.
        RedisUnavailable: It went away before the end.
        UsageWrong: The file exists.
    """
    if path.exists():
        raise UsageWrong(f"{path}: is there already; name a new file.")
    part = path.with_name(f".{path.name}.part")
    try:
        with private_file(part) as file, _replicating(client) as receive:
            size = _copy(receive, file, tell)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # unlike a rename, it replaces nothing
        except FileExistsError:
            raise UsageWrong(f"{path}: is there already; name a new file.") from None
    finally:
        part.unlink(missing_ok=True)
    return size


@contextmanager
def _replicating(client: Redis) -> Iterator[Callable[[], bytes]]:
    """Ask for all data as a new replica does; yield a function that returns the next bytes."""
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    try:
        # Without the first the server writes a file of its own, without the second it goes on.
        for option in (("capa", "eof"), ("rdb-only", "1")):
            connection.send_command("REPLCONF", *option)
            with suppress(ResponseError):
                connection.read_response()
        connection.send_command("SYNC")
        # What follows is no answer that the library could read.
        socket = connection._sock  # noqa: SLF001 - see above
        socket.settimeout(_SILENCE_SECONDS)

        def receive() -> bytes:
            try:
                piece: bytes = socket.recv(_PIECE_BYTES)
            except OSError as error:
                reason = error.strerror or "it fell silent"
                raise RedisUnavailable(f"Redis broke the backup off: {reason}.") from error
            if not piece:
                raise RedisUnavailable("Redis broke the backup off: it closed the connection.")
            return piece

        yield receive
    finally:
        connection.disconnect()
        pool.release(connection)


def _copy(receive: Callable[[], bytes], file: BinaryIO, tell: Callable[[int], None]) -> int:
    """Write what a server sends: `$SIZE` or `$EOF:MARK`, a line break, the data, and the mark."""
    head = b""
    while b"\r\n" not in head:
        head = (head + receive()).lstrip(b"\n")  # empty lines while it prepares the data
    line, rest = head.split(b"\r\n", 1)
    if not line.startswith(b"$"):
        said = line.lstrip(b"-").decode(errors="replace")
        raise OperationsMustAct(f"Redis refuses a backup: {said[:200]}")
    if not line.startswith(b"$EOF:"):
        return _copy_sized(receive, file, tell, rest, int(line[1:]))
    mark, size = line[5 : 5 + _MARK_BYTES], 0
    while not rest.endswith(mark):
        ready, rest = rest[:-_MARK_BYTES], rest[-_MARK_BYTES:]
        size += _written(file, ready, tell)
        rest += receive()
    return size + _written(file, rest[:-_MARK_BYTES], tell)


def _copy_sized(
    receive: Callable[[], bytes],
    file: BinaryIO,
    tell: Callable[[int], None],
    first: bytes,
    size: int,
) -> int:
    left = size - _written(file, first[:size], tell)
    while left:
        left -= _written(file, receive()[:left], tell)
    return size


def _written(file: BinaryIO, data: bytes, tell: Callable[[int], None]) -> int:
    file.write(data)
    tell(len(data))
    return len(data)


def restore(path: Path, data_dir: Path) -> tuple[EmbeddedRedis, Path | None]:
    """Start the embedded Redis with what a backup holds.

    Args:
        path: A backup.
        data_dir: Of the embedded Redis, which must not run.

    Returns:
        The server, and the folder with what was there before; None = there was nothing.

    Raises:
        UsageWrong: The file is no backup.
        OperationsMustAct: The embedded Redis runs, or can't load the file; nothing has changed.
    """
    _refuse_other_files(path)
    files = prepared(data_dir)
    with usable(files), locked(files.lock) as lock:
        if lock is None:
            raise OperationsMustAct(
                f"The embedded Redis of {files.data_dir} runs: stop everything that works on it,"
                " then `segrelay redis stop`, then restore."
            )
        before = _switch(path, files)
    try:
        server = ensure_running(data_dir)
        _refuse_other_data(server, path)
    except (RedisUnavailable, UsageWrong) as error:
        _switch_back(files, before)
        raise OperationsMustAct(
            f"{path}: could not be restored, and nothing has changed. {error.message}"
        ) from error
    return server, _put_aside(files, before)


def _refuse_other_files(path: Path) -> None:
    try:
        with path.open("rb") as file:
            begins = file.read(max(map(len, _MAGIC)))
    except OSError as error:
        raise UsageWrong(f"{path}: can't be read ({error.strerror}).") from error
    if not begins.startswith(_MAGIC):
        raise UsageWrong(f"{path}: is no backup; `segrelay redis backup` makes one.")


def _refuse_other_data(server: EmbeddedRedis, path: Path) -> None:
    with closing(connect(server.url)) as client:
        if not client.exists(FORMAT):
            raise UsageWrong(f"{path}: is the data of something else than segrelay.")


def _switch(path: Path, files: EmbeddedFiles) -> bytes:
    """Write the manifest by which the next start loads a backup; return the former, b"" = none."""
    folder = files.data_dir / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    manifest = folder / MANIFEST
    before = manifest.read_bytes() if manifest.exists() else b""
    base = f"restored-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.base.rdb"
    with path.open("rb") as source, private_file(folder / base) as copy:
        shutil.copyfileobj(source, copy, _PIECE_BYTES)
        copy.flush()
        os.fsync(copy.fileno())
    # The server begins its next file with the next number, whatever is there.
    names = (one.name for one in folder.iterdir())
    used = [int(found[1]) for found in map(_INCREMENT.fullmatch, names) if found]
    number = max(used, default=0) + 1
    increment = f"appendonly.aof.{number}.incr.aof"
    write_private(folder / increment, b"")
    text = f"file {base} seq 1 type b\nfile {increment} seq {number} type i\n"
    write_private(manifest, text.encode())
    return before


def _switch_back(files: EmbeddedFiles, before: bytes) -> None:
    stop(files.data_dir)
    folder = files.data_dir / FOLDER
    failed = _named(folder / MANIFEST)
    if before:
        write_private(folder / MANIFEST, before)
    else:
        (folder / MANIFEST).unlink()
    for name in failed - _names_in(before):
        (folder / name).unlink(missing_ok=True)


def _put_aside(files: EmbeddedFiles, before: bytes) -> Path | None:
    """Move the files of a former manifest into a folder of their own, and return it."""
    if not before:
        return None
    folder = files.data_dir / FOLDER
    aside = files.data_dir / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    aside.mkdir(mode=0o700)
    write_private(aside / MANIFEST, before)
    for name in _names_in(before):
        with suppress(FileNotFoundError):
            (folder / name).rename(aside / name)
    return aside


def _named(manifest: Path) -> set[str]:
    return _names_in(manifest.read_bytes())


def _names_in(manifest: bytes) -> set[str]:
    lines = [line.split() for line in manifest.decode().splitlines()]
    return {words[1] for words in lines if len(words) > 1 and words[0] == "file"}

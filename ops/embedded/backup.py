"""Backups: a file with all that a Redis holds, and its return into the embedded one.

The file is what a server sends to a new replica (an RDB): the state of one moment, taken while
everything runs, over our own connection. No setting is changed for it. A process that is killed
leaves an unfinished file with a name of its own, which the next backup of that name replaces.

A restore first keeps what is there in a folder of its own. Then it writes new files beside those of
the append-only file, and switches by the one rename of its manifest. If the server can't load them,
the former manifest is back.
"""

from __future__ import annotations

import os
import re
import secrets
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
        client: A client of one server, or behind Sentinels.
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
    with _unfinished(path) as (part, file):
        with _replicating(client) as receive:
            size = _copy(receive, file, tell)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(part, path)  # unlike a rename, it replaces nothing
        except FileExistsError:
            raise UsageWrong(f"{path}: is there already; name a new file.") from None
        _sync_folder(path.parent)
    return size


@contextmanager
def _unfinished(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open the file beside `path` that a backup is written to; it is gone afterwards."""
    part = path.with_name(f".{path.name}.part")
    with locked(part) as descriptor:
        # Who opened it just before another backup ended holds a file that has its final name.
        if descriptor is None or not _is_at(part, descriptor):
            raise UsageWrong(f"{path}: another backup writes this file; name another one.")
        try:
            os.ftruncate(descriptor, 0)
            with os.fdopen(os.dup(descriptor), "wb") as file:
                yield part, file
        finally:
            part.unlink(missing_ok=True)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Have the names of a folder's files on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        data_dir: The data directory of the embedded Redis, which must not run.

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
        aside = _keep(files)
        _switch(path, files)
    try:
        server = ensure_running(data_dir)
        _refuse_other_data(server, path)
    except (RedisUnavailable, UsageWrong) as error:
        _switch_back(files, aside)
        raise OperationsMustAct(
            f"{path}: could not be restored, and nothing has changed. {error.message}"
        ) from error
    if aside:
        for name in _names_in(aside / MANIFEST):
            (files.data_dir / FOLDER / name).unlink(missing_ok=True)
    return server, aside


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


def _keep(files: EmbeddedFiles) -> Path | None:
    """Keep what is there, by further names, in a folder of its own; None = nothing is there."""
    folder = files.data_dir / FOLDER
    if not (folder / MANIFEST).exists():
        return None
    aside = files.data_dir / f"replaced-{_unique()}"
    aside.mkdir(mode=0o700)
    for name in _names_in(folder / MANIFEST):
        os.link(folder / name, aside / name)
    write_private(aside / MANIFEST, (folder / MANIFEST).read_bytes())
    _sync_folder(aside)
    return aside


def _switch(path: Path, files: EmbeddedFiles) -> None:
    """Write the files and the manifest by which the next start loads a backup."""
    folder = files.data_dir / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    base = f"restored-{_unique()}.base.rdb"
    with path.open("rb") as source, private_file(folder / base, must_be_new=True) as copy:
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
    write_private(folder / MANIFEST, text.encode())
    _sync_folder(folder)


def _unique() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def _switch_back(files: EmbeddedFiles, aside: Path | None) -> None:
    """Put the former manifest back, and remove the files of the backup."""
    stop(files.data_dir)
    folder = files.data_dir / FOLDER
    names = _names_in(folder / MANIFEST)
    if aside:
        write_private(folder / MANIFEST, (aside / MANIFEST).read_bytes())
        shutil.rmtree(aside)
    else:
        (folder / MANIFEST).unlink()
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _names_in(manifest: Path) -> set[str]:
    lines = [line.split() for line in manifest.read_text("utf-8").splitlines()]
    return {words[1] for words in lines if len(words) > 1 and words[0] == "file"}

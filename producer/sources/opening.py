"""Opening a file or a pipe: unpacked, with what its content says about its format.

Nothing is believed of a name: gzip, zstd and formats are told by their first bytes.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import re
import select
import stat
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from glob import glob
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, Protocol

from segrelay.producer.sources.remote import (
    RANGE_BYTES,
    Bucket,
    BucketFile,
    FileState,
    NotThere,
    names_several,
)
from segrelay.worker.contract.settings.urls import is_remote
from segrelay.worker.errors import SourceChanged, SourceDamaged, UsageWrong

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STANDARD_INPUT: Final = "-"
LARGEST_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
DAMAGED: Final = (EOFError, OSError, zlib.error, zstd.ZstdError)
"""The exceptions that unpacking a damaged file raises."""
_HEAD_BYTES: Final = 65_536
_BUFFER_BYTES: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = tuple(bytes((first,)) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
"""The beginnings of frames that hold nothing of the file; pzstd and seekable files have them."""
_PARQUET: Final = b"PAR1"
_BEGINNINGS: Final = (_GZIP, _ZSTD, *_ZSTD_SKIPPABLE, _PARQUET)
_SNIFFED_BYTES: Final = 4_096
_UTF_16: Final = "UTF-16: `iconv -f utf-16 -t utf-8 FILE | segrelay {command} -`"
_NOT_TEXT: Final = {
    b"PK\x03\x04": "a zip archive (or a spreadsheet): unpack it first, or export it as CSV",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: export it as CSV",
    b"BZh": "bzip2: `bzcat FILE | segrelay {command} -`",
    b"\xfd7zXZ\x00": "xz: `xzcat FILE | segrelay {command} -`",
    codecs.BOM_UTF16_LE: _UTF_16,
    codecs.BOM_UTF16_BE: _UTF_16,
}
_NOT_OF_A_PIPE: Final = {
    _GZIP: "gzip: `zcat FILE | segrelay send -`",
    _ZSTD: "zstd: `zstdcat FILE | segrelay send -`",
}
Packed = io.FileIO | BucketFile
"""A file without a buffer."""


IDLE_SECONDS: Final = 0.2
_PIPE_BYTES: Final = 1 << 18


class Lines(Protocol):
    """A source that `read_payloads` can read."""

    def readline(self, limit: int, /) -> bytes | None:
        """Return the next line or piece of one, b"" at the end; None if none came for a while."""


class Format(StrEnum):
    """The format of the rows in a file."""

    OBJECTS = "json objects"
    """A JSON object a line, or pretty-printed ones one after the other."""
    ARRAY = "json array"
    CSV = "csv"
    PARQUET = "parquet"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that was opened.

    Args:
        name: The name that a person gave.
        format: The format that its content shows.
        stream: The content as UTF-8 without a byte order mark; for Parquet the file itself. It ends
            where the file is damaged.
        packed: The file as it lies on the disk or elsewhere, to tell how far the reading is.
        size: The bytes of the packed file; 0 where it is not known.
        state: The state of the file before anything of it was read; None for a pipe.
        pipe: The lines of a pipe that is read as they come; None where all of it is there.
        is_packed: True for gzip and zstd, which tell where they end.
        damages: The reasons why the file is not whole, as far as it was read; see `refuse_damage`.
    """

    name: str
    format: Format
    stream: io.BufferedReader[Any]
    packed: Packed
    size: int
    state: FileState | None = None
    is_packed: bool = False
    damages: list[str] = field(default_factory=list)
    pipe: PipeLines | None = None

    @property
    def digest(self) -> str:
        """Return the digest of this version of the file, hex; "" = it can't be read twice."""
        return digest_of(self.name, self.state) if self.state else ""

    def read_bytes(self) -> int:
        """Return how many bytes of the packed file were read; 0 where it is not known."""
        return self.packed.tell() if self.size else 0

    def shows_its_end(self) -> bool:
        """Say whether the file's last bytes can tell that nothing is missing of its last row.

        A row of CSV that is cut off within its last cell looks like a whole one.
        """
        if self.format is not Format.CSV or not self.size or self.is_packed:
            return True
        at = self.packed.tell()
        self.packed.seek(self.size - 1)
        last = self.packed.read(1)
        self.packed.seek(at)
        return last in (b"\n", b"\r")

    def refuse_damage(self, behind: str) -> None:
        """Raise if what was read is not the whole file; to be called after the last row.

        Args:
            behind: The place behind which the rest is missing, for the message.

        Raises:
            SourceDamaged: It is cut off, can't be unpacked, or something else stands at its end.
        """
        if self.damages:
            raise SourceDamaged(f"{self.name} is damaged: {behind}, {self.damages[0]}.")

    def refuse_change(self) -> None:
        """Raise if the file has changed since it was opened; to be called again after the last row.

        Raises:
            SourceChanged: It was written to since.
        """
        if is_remote(self.name):
            return  # whatever is read of it is of the version of then
        if self.state != look_at_file(self.packed.fileno()):
            raise SourceChanged(
                f"{self.name} was written to while it was read, so that its rows may be half of "
                "the old file and half of the new one."
            )


@contextmanager
def opened(name: str, *, for_send: bool = False) -> Iterator[Opened]:
    """Open a file or standard input.

    Args:
        name: The path, `-`, or the URL (`s3://`, `gs://`, `az://`).
        for_send: True for `segrelay send`, which reads a pipe as its lines come, and takes only
            JSON.

    Raises:
        UsageWrong: It is missing, unreadable, or nothing that holds rows.
        SourceUnavailable: It lies elsewhere, and there is no answer.
    """
    with ExitStack() as stack:
        packed, state = stack.enter_context(_open_packed(name))
        at_once = RANGE_BYTES if isinstance(packed, BucketFile) else _BUFFER_BYTES
        file = io.BufferedReader(packed, at_once)
        damages: list[str] = []
        if for_send and state is None and name == STANDARD_INPUT:
            pipe = PipeLines(packed.fileno(), name)
            yield Opened(name, Format.OBJECTS, file, packed, 0, damages=damages, pipe=pipe)
            return
        size = packed.seek(0, os.SEEK_END) if state else 0
        if state:
            packed.seek(0)
        stream = stack.enter_context(_unpacked(file, size, damages))
        is_packed = stream is not file
        head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        _refuse_magic(name, head, _NOT_TEXT, "send" if for_send else "backfill start")
        if for_send:
            _refuse_no_json(name, head[:_SNIFFED_BYTES])
        kind = Format.PARQUET if head.startswith(_PARQUET) else _format(head)
        if kind is not Format.PARQUET and head.startswith(codecs.BOM_UTF8):
            stream.read(len(codecs.BOM_UTF8))
        yield Opened(name, kind, stream, packed, size, state, is_packed, damages)


@contextmanager
def _open_packed(name: str) -> Iterator[tuple[Packed, FileState | None]]:
    """Open the file itself, without a buffer, so that its position says how far we are.

    Yields:
        The file, and its state; None for a pipe.

    Raises:
        UsageWrong: It is missing or unreadable.
        SourceUnavailable: It lies elsewhere, and there is no answer.
    """
    if is_remote(name):
        with BucketFile(Bucket(name)) as remote:
            yield remote, remote.state
        return
    try:
        file = _standard_input() if name == STANDARD_INPUT else io.FileIO(Path(name).expanduser())
    except FileNotFoundError as error:
        raise no_such_file(name) from error
    except IsADirectoryError as error:
        raise UsageWrong(
            f"{name} is a directory; name a file in it (a backfill takes '{name}/*')."
        ) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or type(error).__name__
        raise UsageWrong(f"{name} can't be opened: {why}.") from error
    with file:
        yield file, look_at_file(file.fileno())


def no_such_file(name: str) -> UsageWrong:
    """Return the error that says that there is no file of this name."""
    if not name.startswith(("https://", "http://")):
        return UsageWrong(f"{name}: there is no such file.")
    return UsageWrong(
        f"{name}: files on web servers are not read; download it first (`curl -sSfO URL`)."
    )


def _standard_input() -> io.FileIO:
    try:
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    except io.UnsupportedOperation:  # a stand-in for standard input
        with TemporaryFile() as copy:
            copy.write(sys.stdin.buffer.read())
            copy.seek(0)
            return io.FileIO(os.dup(copy.fileno()))


def files_of(source: str) -> list[str]:
    """Return the files that a path, a pattern or a URL names, sorted.

    Raises:
        UsageWrong: There is no such bucket, or it can't be listed.
    """
    if is_remote(source):
        several = names_several(source)
        return list(Bucket(source).listing(may_be_empty=True)) if several else [source]
    pattern = str(Path(source).expanduser())
    return sorted(name for name in glob(pattern) if Path(name).is_file())  # noqa: PTH207 - any pattern, relative or not


UNFINISHED: Final = (".part", ".partial", ".filepart", ".tmp", ".crdownload", "~")
"""The ends of names that programs give to files that they have not finished."""
_HIDDEN: Final = (".", "_")
_WILD: Final = re.compile(r"[*?\[]")


def listing_of(source: str) -> dict[str, FileState]:
    """Return the files that a place holds now, with their identities, by name; sorted.

    Names that are hidden, or look unfinished, are left out.

    Args:
        source: The folder, pattern or URL.

    Raises:
        UsageWrong: There is no such folder or bucket, or it can't be listed.
        SourceUnavailable: There is no answer from where it lies.
    """
    if not is_remote(source):
        found = _listing_of_folder(source)
    elif names_several(source):
        found = Bucket(source).listing(may_be_empty=True)
    else:
        state = look_at_file(source)
        found = {source: state} if state else {}
    return {
        name: one
        for name, one in found.items()
        if not (name.rpartition("/")[2].startswith(_HIDDEN) or name.endswith(UNFINISHED))
    }


def _listing_of_folder(source: str) -> dict[str, FileState]:
    path = Path(source).expanduser()
    is_folder = source.endswith("/") or path.is_dir()
    folder = path if is_folder else _fixed_part(path)
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise UsageWrong(f"The folder {folder} can't be listed: {error.strerror}.") from error
    names = files_of(str(path / "*" if is_folder else path))
    return {name: found for name in names if (found := look_at_file(name))}


def look_at_file(file: str | os.PathLike[str] | int) -> FileState | None:
    """Return the state of a path, a URL or an open descriptor; None if it is no regular file.

    Raises:
        UsageWrong: It lies elsewhere, and may not be read.
        SourceUnavailable: There is no answer from where it lies.
    """
    if isinstance(file, str) and is_remote(file):
        with suppress(NotThere):
            return Bucket(file).look()
        return None
    try:
        found = os.stat(file)  # noqa: PTH116 - a descriptor has no Path
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileState(found.st_size, str(found.st_ino), found.st_mtime_ns)


def _fixed_part(pattern: Path) -> Path:
    """Return the folder above the first part of a pattern that may match several names."""
    return next(
        (one.parent for one in reversed((pattern, *pattern.parents)) if _WILD.search(one.name)),
        pattern.parent,
    )


def digest_of(name: str, state: FileState) -> str:
    """Return a digest that differs between the versions of a file, hex.

    It is made of the size, and of the ETag or, on this machine, the time of the last write: a
    folder may get other inodes when it is mounted anew.
    """
    version = state.version if is_remote(name) else state.changed_ns
    return hashlib.sha256(f"{version}|{state.size}".encode()).hexdigest()[:24]


def _unpacked(
    stream: io.BufferedReader[Any], size: int, damages: list[str]
) -> io.BufferedReader[Any]:
    head = stream.peek(_HEAD_BYTES)
    if head.startswith(_GZIP):
        return _as_stream(gzip.GzipFile(fileobj=stream), damages)
    if head.startswith((_ZSTD, *_ZSTD_SKIPPABLE)):
        return _as_stream(zstd.ZstdFile(stream), damages)
    if 0 < size == len(head) and any(
        begin != head and begin.startswith(head) for begin in _BEGINNINGS
    ):
        damages.append("only its first bytes are there")
        return io.BufferedReader(io.BytesIO())
    return stream


class _Unpacking(io.RawIOBase):
    """The content of a packed file, which ends where unpacking says that the file is damaged."""

    def __init__(self, file: gzip.GzipFile | zstd.ZstdFile, damages: list[str]) -> None:
        self._file = file
        self._damages = damages

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what io hands over
        """Read the next bytes; whatever stands before the damage is read first."""
        try:
            piece = self._file.read1(len(buffer))
        except DAMAGED as error:
            self._damages.append(f"it can't be unpacked to its end ({error})")
            return 0
        buffer[: len(piece)] = piece
        return len(piece)


def _as_stream(file: gzip.GzipFile | zstd.ZstdFile, damages: list[str]) -> io.BufferedReader[Any]:
    return io.BufferedReader(_Unpacking(file, damages), _BUFFER_BYTES)


def _format(head: bytes) -> Format:
    """Tell the format of a text by its first character."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n")
    if not text:
        return Format.EMPTY
    match text[:1]:
        case b"{":
            return Format.OBJECTS
        case b"[":
            return Format.ARRAY
        case _:
            return Format.CSV


class PipeLines:
    """The lines of a pipe or a terminal; None where none was completed for a while."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._pending = bytearray()
        self._looked_at = 0
        self._begun = False
        self._ended = False

    def readline(self, limit: int, /) -> bytes | None:
        """Return the next line, b"" at the end, None if none was completed for 0.2 s.

        Raises:
            UsageWrong: It begins as no JSON does.
        """
        deadline = time.monotonic() + IDLE_SECONDS
        while (size := self._line_size(limit)) is None:
            remaining = max(0.0, deadline - time.monotonic())
            if not select.select([self._descriptor], [], [], remaining)[0]:
                return None
            self._take(os.read(self._descriptor, _PIPE_BYTES))
        line = bytes(self._pending[:size])
        del self._pending[:size]
        self._looked_at = 0
        return line

    def _line_size(self, limit: int) -> int | None:
        found = self._pending.find(b"\n", self._looked_at, limit)
        if found >= 0:
            return found + 1
        self._looked_at = len(self._pending)
        return min(limit, len(self._pending)) if self._ended or self._looked_at >= limit else None

    def _take(self, data: bytes) -> None:
        if data and not self._begun:
            _refuse_magic(self._name, data, _NOT_OF_A_PIPE | _NOT_TEXT, "send")
            _refuse_no_json(self._name, data[:_SNIFFED_BYTES])
            self._begun = True
        self._ended = not data
        self._pending += data


def rows_hint(name: str) -> str:
    """Return a hint at the command that takes rows of profiles."""
    return (
        f"`segrelay backfill start {name} --audience SLUG` makes events of them: each row is a "
        "person who is in the audience."
    )


def _refuse_magic(name: str, head: bytes, known: Mapping[bytes, str], command: str) -> None:
    for magic, what in known.items():
        if head.startswith(magic):
            raise UsageWrong(f"{name} is {what.format(command=command)}.")


def _refuse_no_json(name: str, head: bytes) -> None:
    if b"\x00" in head:
        raise UsageWrong(f"{name} is not JSON text: it holds binary zeros.")
    if _is_table(head):
        raise UsageWrong(
            f"{name} is a table (CSV), not JSON. Its rows hold no events; {rows_hint(name)}"
        )


def _is_table(head: bytes) -> bool:
    """Say whether a file begins like a table: separators in its first line, JSON in no line."""
    lines = [line.strip() for line in head.removeprefix(codecs.BOM_UTF8).split(b"\n")]
    lines = [line for line in lines if line]
    if not lines or any(line.startswith((b"{", b"[")) for line in lines):
        return False
    return any(separator in lines[0] for separator in (b",", b";", b"\t", b"|"))

"""Opening a file: unpacked, as UTF-8, with what its content says about its format.

Nothing is believed of a name: gzip, zstd, UTF-16 and formats are told by their first bytes.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from glob import glob
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from segrelay.producer.sources.remote import (
    RANGE_BYTES,
    BucketFile,
    FileState,
    expand,
    list_remote,
    look_at_remote,
    open_remote,
)
from segrelay.worker.contract.settings.urls import is_remote
from segrelay.worker.errors import SourceChanged, SourceDamaged, UsageWrong

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STANDARD_INPUT: Final = "-"
DAMAGED: Final = (EOFError, OSError, zlib.error, zstd.ZstdError)
"""The exceptions that unpacking a damaged file raises."""
_HEAD_BYTES: Final = 65_536
_LINE_BREAK_BYTES: Final = 2
"""The bytes of a line break in UTF-16."""
_BUFFER_BYTES: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = tuple(bytes((first,)) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
"""The beginnings of frames that hold nothing of the file; pzstd and seekable files have them."""
_PARQUET: Final = b"PAR1"
_BEGINNINGS: Final = (_GZIP, _ZSTD, *_ZSTD_SKIPPABLE, _PARQUET)
_NOT_ROWS: Final = {
    b"PK\x03\x04": "a zip archive (or a spreadsheet): unpack it first, or export it as CSV",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: export it as CSV",
    b"BZh": "bzip2: `bzcat FILE | segrelay backfill start -`",
    b"\xfd7zXZ\x00": "xz: `xzcat FILE | segrelay backfill start -`",
}
_DIGESTS: Final[dict[tuple[int, ...], str]] = {}
"""The digests of files that were read already, by device, inode, size and time of change."""
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
Packed = io.FileIO | BucketFile
"""A file without a buffer."""


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
        name: As a person named it.
        format: By its content.
        stream: UTF-8 without a byte order mark; for Parquet the file itself. It ends where the file
            is damaged.
        packed: The file as it lies on the disk or elsewhere, to tell how far the reading is.
        size: Of the packed file; 0 where it is not known.
        digest: Digest of the packed content, or of the version of an object, in hex; "" where it
            can't be read twice.
        state: Of the file before anything of it was read; None for a pipe.
        is_packed: True for gzip and zstd, which tell where they end.
        damages: The reasons why the file is not whole, as far as it was read; see `refuse_damage`.
    """

    name: str
    format: Format
    stream: io.BufferedReader[Any]
    packed: Packed
    size: int
    digest: str
    state: FileState | None = None
    is_packed: bool = False
    damages: list[str] = field(default_factory=list)

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
        self.packed.seek(max(0, self.size - _LINE_BREAK_BYTES))
        last = self.packed.read(_LINE_BREAK_BYTES) or b""
        self.packed.seek(at)
        return last.replace(b"\0", b"").endswith((b"\n", b"\r"))

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
        now = look_at_file(self.packed.fileno())
        if self.state is None or now == self.state or self._has_only_a_new_inode_time(now):
            return
        raise SourceChanged(
            f"{self.name} was written to while it was read, so that its rows may be half of "
            "the old file and half of the new one."
        )

    def _has_only_a_new_inode_time(self, now: FileState | None) -> bool:
        """Say whether the content is the same although the inode was changed.

        A new name, link, owner or permission changes it, and so does whoever writes to the file
        and sets its time back.
        """
        if not (self.digest and now and self.state):
            return False
        if now._replace(inode_changed_ns=self.state.inode_changed_ns) != self.state:
            return False
        return digest_of(self.packed) == self.digest


@contextmanager
def opened(name: str, *, with_digest: bool = True) -> Iterator[Opened]:
    """Open a file or standard input.

    Args:
        name: A path, `-`, or a URL (`s3://`, `gs://`, `az://`, `https://`).
        with_digest: Read the whole file once before, to recognise it when a job goes on.

    Raises:
        UsageWrong: It is missing, unreadable, or nothing that holds rows.
        SourceUnavailable: It lies elsewhere, and there is no answer.
    """
    with ExitStack() as stack:
        packed, state = stack.enter_context(open_packed(name))
        size = packed.seek(0, os.SEEK_END) if state else 0
        if state:
            packed.seek(0)
        digest = digest_of(packed) if state and with_digest else ""
        damages: list[str] = []
        file = buffered(packed)
        stream = stack.enter_context(_unpacked(file, size, damages))
        is_packed = stream is not file
        head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        for magic, what in _NOT_ROWS.items():
            if head.startswith(magic):
                raise UsageWrong(f"{name} is {what}.")
        if head.startswith(_PARQUET):
            kind = Format.PARQUET
        else:
            stream = _as_utf8(stream, head, damages)
            kind = _format(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES])
        yield Opened(name, kind, stream, packed, size, digest, state, is_packed, damages)


@contextmanager
def open_packed(name: str) -> Iterator[tuple[Packed, FileState | None]]:
    """Open the file itself, without a buffer, so that its position says how far we are.

    Yields:
        The file, and its state; None for a pipe.

    Raises:
        UsageWrong: It is missing or unreadable.
        SourceUnavailable: It lies elsewhere, and there is no answer.
    """
    if is_remote(name):
        with open_remote(name) as opened_remote:
            yield opened_remote
        return
    try:
        file = _standard_input() if name == STANDARD_INPUT else io.FileIO(Path(name).expanduser())
    except FileNotFoundError as error:
        raise UsageWrong(f"{name}: there is no such file.") from error
    except IsADirectoryError as error:
        raise UsageWrong(
            f"{name} is a directory; name a file in it (a backfill takes '{name}/*')."
        ) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or type(error).__name__
        raise UsageWrong(f"{name} can't be opened: {why}.") from error
    with file:
        yield file, look_at_file(file.fileno())


def _standard_input() -> io.FileIO:
    try:
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    except io.UnsupportedOperation:  # a stand-in for standard input
        with TemporaryFile() as copy:
            copy.write(sys.stdin.buffer.read())
            copy.seek(0)
            return io.FileIO(os.dup(copy.fileno()))


def buffered(packed: Packed) -> io.BufferedReader[Packed]:
    """Return a file with a buffer; that of an object is as large as one request."""
    return io.BufferedReader(
        packed, RANGE_BYTES if isinstance(packed, BucketFile) else _BUFFER_BYTES
    )


def files_of(source: str) -> list[str]:
    """Return the files that a path, a pattern or a URL names, sorted; none where there is none."""
    if is_remote(source):
        return expand(source)
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
        source: A folder, a pattern or a URL.

    Raises:
        UsageWrong: There is no such folder or bucket, or it can't be listed.
        SourceUnavailable: There is no answer from where it lies.
    """
    found = list_remote(source) if is_remote(source) else _listing_of_folder(source)
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
        return look_at_remote(file)
    try:
        found = os.stat(file)  # noqa: PTH116 - a descriptor has no Path
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileState(found.st_size, str(found.st_ino), found.st_mtime_ns, found.st_ctime_ns)


def _fixed_part(pattern: Path) -> Path:
    """Return the folder above the first part of a pattern that may match several names."""
    return next(
        (one.parent for one in reversed((pattern, *pattern.parents)) if _WILD.search(one.name)),
        pattern.parent,
    )


def digest_of(packed: Packed) -> str:
    """Return the digest of a file; its position stays as it was."""
    if isinstance(packed, BucketFile):
        return packed.digest()
    found = os.fstat(packed.fileno())
    known_by = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    if known_by not in _DIGESTS:
        at = packed.tell()
        packed.seek(0)
        content = hashlib.file_digest(packed, "sha256")
        _DIGESTS[known_by] = content.hexdigest()[:24]
        packed.seek(at)
    return _DIGESTS[known_by]


def _unpacked(
    stream: io.BufferedReader[Any], size: int, damages: list[str]
) -> io.BufferedReader[Any]:
    head = stream.peek(_HEAD_BYTES)
    if head.startswith(_GZIP):
        return _as_stream(_pieces_of(gzip.GzipFile(fileobj=stream)), damages)
    if head.startswith((_ZSTD, *_ZSTD_SKIPPABLE)):
        return _as_stream(_pieces_of(zstd.ZstdFile(stream)), damages)
    if 0 < size == len(head) and any(
        begin != head and begin.startswith(head) for begin in _BEGINNINGS
    ):
        damages.append("only its first bytes are there")
        return io.BufferedReader(io.BytesIO())
    return stream


def _pieces_of(file: gzip.GzipFile | zstd.ZstdFile) -> Iterator[bytes]:
    return iter(partial(file.read1, _BUFFER_BYTES), b"")


class _Pieces(io.RawIOBase):
    """A stream made of pieces, which ends where making them raises that the file is damaged."""

    def __init__(self, pieces: Iterator[bytes], damages: list[str]) -> None:
        self._pieces = pieces
        self._damages = damages
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Say that the stream can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what io hands over
        """Read the next bytes; whatever stands before the damage is read first."""
        try:
            while not self._left:
                self._left = memoryview(next(self._pieces))
        except StopIteration:
            return 0
        except DAMAGED as error:
            self._damages.append(f"it can't be unpacked to its end ({error})")
            return 0
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


def _as_stream(pieces: Iterator[bytes], damages: list[str]) -> io.BufferedReader[Any]:
    return io.BufferedReader(_Pieces(pieces, damages), _BUFFER_BYTES)


def _as_utf8(
    stream: io.BufferedReader[Any], head: bytes, damages: list[str]
) -> io.BufferedReader[Any]:
    """Return a text without its mark, as UTF-8."""
    if head.startswith(_UTF_16):
        return _as_stream(_recoded(stream), damages)
    if head.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    return stream


def _recoded(stream: io.BufferedReader[Any]) -> Iterator[bytes]:
    """Yield a text in UTF-16 as UTF-8; what can't be decoded becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    while piece := stream.read1(_BUFFER_BYTES):
        yield decoder.decode(piece).encode()
    if decoder.getstate()[0]:
        raise EOFError("its last character is cut off")


def _format(head: bytes) -> Format:
    """Tell the format of a text by its first character."""
    text = head.lstrip(b" \t\r\n")
    if not text:
        return Format.EMPTY
    match text[:1]:
        case b"{":
            return Format.OBJECTS
        case b"[":
            return Format.ARRAY
        case _:
            return Format.CSV

"""Opening a file: unpacked, as UTF-8, with what its content says about its format.

Nothing is believed of a name: gzip, zstd, encodings and formats are told by their first bytes.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

import zstandard

from worker.errors import SourceChanged, UsageWrong

STANDARD_INPUT: Final = "-"
DAMAGED: Final = (EOFError, OSError, zlib.error, zstandard.ZstdError)
"""The exceptions that unpacking a damaged file raises."""
_HEAD_BYTES: Final = 65_536
_BUFFER_BYTES: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PARQUET: Final = b"PAR1"
_NOT_ROWS: Final = {
    b"PK\x03\x04": "a zip archive (or a spreadsheet): unpack it first, or export it as CSV",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: export it as CSV",
    b"BZh": "bzip2: `bzcat FILE | segrelay backfill start -`",
    b"\xfd7zXZ\x00": "xz: `xzcat FILE | segrelay backfill start -`",
}
_DIGESTS: Final[dict[tuple[int, ...], str]] = {}
"""The digests of files that were read already, by device, inode, size and time of change."""
_UTF_16: Final = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_BOM: Final = codecs.BOM_UTF8
"""The byte order mark of UTF-8."""
_FALLBACK_ENCODING: Final = "cp1252"
_JSON: Final = ("{", "[")


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
        stream: UTF-8 without a byte order mark; for Parquet the file itself.
        packed: The file as it lies on the disk, to tell how far the reading is.
        size: Of the packed file; 0 where it is not known.
        digest: Of the packed content; "" where it can't be read twice.
        encoding: What the text was, e.g. `utf-8`.
        state: Of the file before anything of it was read; None for a pipe.
    """

    name: str
    format: Format
    stream: io.BufferedReader[Any]
    packed: BinaryIO
    size: int
    digest: str
    encoding: str
    state: FileState | None = None

    def read_bytes(self) -> int:
        """Return how many bytes of the packed file were read; 0 where it is not known."""
        return self.packed.tell() if self.size else 0

    def refuse_change(self) -> None:
        """Raise if the file has changed since it was opened; to be called again after the last row.

        Raises:
            SourceChanged: It was written to since.
        """
        if self.state is not None and FileState.of(self.packed.fileno()) != self.state:
            raise SourceChanged(
                f"{self.name} was written to while it was read, so that its rows may be half of "
                "the old file and half of the new one."
            )


@contextmanager
def opened(name: str, *, with_digest: bool = True) -> Iterator[Opened]:
    """Open a file or standard input.

    Args:
        name: A path, or `-`.
        with_digest: Read the whole file once before, to recognise it when a job goes on.

    Raises:
        UsageWrong: It is missing, unreadable, or nothing that holds rows.
    """
    with ExitStack() as stack:
        packed = stack.enter_context(_packed(name))
        state = FileState.of(packed.fileno())
        size, digest = 0, ""
        if state:
            packed.seek(0)
            size, digest = state.size, _digest(packed) if with_digest else ""
        stream = stack.enter_context(_unpacked(io.BufferedReader(packed, _BUFFER_BYTES)))
        head = _head(stream, name)
        _refuse_other_kinds(name, head)
        if head.startswith(_PARQUET):
            yield Opened(name, Format.PARQUET, stream, packed, size, digest, "", state)
            return
        encoding = _encoding(head)
        text = _as_utf8(stream, encoding)
        found = _format(_head(text, name))
        yield Opened(name, found, text, packed, size, digest, encoding, state)


def _packed(name: str) -> io.FileIO:
    """Open the file itself, without a buffer, so that its position says how far we are."""
    if name == STANDARD_INPUT:
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    try:
        return io.FileIO(Path(name).expanduser())
    except FileNotFoundError as error:
        raise UsageWrong(f"{name}: there is no such file.") from error
    except IsADirectoryError as error:
        raise UsageWrong(f"{name} is a directory; name its files: '{name}/*'.") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or type(error).__name__
        raise UsageWrong(f"{name} can't be opened: {why}.") from error


def _digest(packed: io.FileIO) -> str:
    found = os.fstat(packed.fileno())
    known_by = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    if known_by not in _DIGESTS:
        _DIGESTS[known_by] = hashlib.file_digest(packed, "sha256").hexdigest()[:24]
        packed.seek(0)
    return _DIGESTS[known_by]


def _unpacked(stream: io.BufferedReader[Any]) -> io.BufferedReader[Any]:
    head = stream.peek(_HEAD_BYTES)
    if head.startswith(_GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=stream), _BUFFER_BYTES)
    if head.startswith(_ZSTD):
        reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
        return io.BufferedReader(reader, _BUFFER_BYTES)
    return stream


def _head(stream: io.BufferedReader[Any], name: str) -> bytes:
    try:
        return stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    except DAMAGED as error:
        raise UsageWrong(f"{name} is damaged: it can't be unpacked ({error}).") from error


def _refuse_other_kinds(name: str, head: bytes) -> None:
    for magic, what in _NOT_ROWS.items():
        if head.startswith(magic):
            raise UsageWrong(f"{name} is {what}.")


def _encoding(head: bytes) -> str:
    """Return the encoding of a text; one damaged row does not make it another one."""
    for mark, encoding in _UTF_16.items():
        if head.startswith(mark):
            return encoding
    # A character may be cut at the end of what was looked at.
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(head, final=False)
    if text.lstrip("\ufeff \t\r\n")[:1] in _JSON:
        return "utf-8"
    damaged = sum(map(_is_no_utf8, text))
    return "utf-8" if 2 * damaged <= len(text) - sum(map(str.isascii, text)) else _FALLBACK_ENCODING


def _is_no_utf8(character: str) -> bool:
    return "\udc80" <= character <= "\udcff"


def _as_utf8(stream: io.BufferedReader[Any], encoding: str) -> io.BufferedReader[Any]:
    if encoding != "utf-8":
        return io.BufferedReader(_Recoded(stream, encoding), _BUFFER_BYTES)
    if stream.peek(len(_BOM)).startswith(_BOM):
        stream.read(len(_BOM))
    return stream


class _Recoded(io.RawIOBase):
    """A stream in another encoding, read as UTF-8; what can't be decoded becomes U+FFFD."""

    def __init__(self, stream: io.BufferedReader[Any], encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._left = b""
        self._began = False

    def readable(self) -> bool:
        """Say that the stream can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what io hands over
        """Read the next bytes."""
        while not self._left:
            piece = self._stream.read1(_BUFFER_BYTES)
            text = self._decoder.decode(piece, final=not piece)
            if not self._began:
                text, self._began = text.removeprefix("\ufeff"), bool(text)
            self._left = text.encode()
            if not piece:
                break
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


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


class FileState(NamedTuple):
    """The identity of a file's content at one moment: inode, size and modification time."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, file: str | os.PathLike[str] | int) -> Self | None:
        """Return the state of a path or an open descriptor; None where it is no regular file."""
        try:
            found = os.stat(file)  # noqa: PTH116 - a descriptor has no Path
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

"""Opening a file: unpacked, as UTF-8, with what its content says about its format.

Nothing is believed of a name: gzip, zstd, encodings and formats are told by their first bytes.
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
from glob import glob
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from segrelay.producer.sources.remote import (
    Found,
    RemoteFile,
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
_ZSTD_STEP_BYTES: Final = 1_024
"""The bytes that are unpacked at once: zstd makes at most 32,768 times as many of them."""
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
_UTF_16: Final = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_BOM: Final = codecs.BOM_UTF8
"""The byte order mark of UTF-8."""
_FALLBACK_ENCODING: Final = "cp1252"
_JSON: Final = ("{", "[")


_Packed = io.FileIO | RemoteFile


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
        digest: Of the packed content, or of the version of a file that lies elsewhere; "" where it
            can't be read twice.
        encoding: The encoding of the text, e.g. `utf-8`.
        state: Of the file before anything of it was read; None for a pipe.
        is_packed: True for gzip and zstd, which tell where they end.
        damages: The reasons why the file is not whole, as far as it was read; see `refuse_damage`.
    """

    name: str
    format: Format
    stream: io.BufferedReader[Any]
    packed: _Packed
    size: int
    digest: str
    encoding: str
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
        begin = max(0, self.size - _LINE_BREAK_BYTES)
        if isinstance(self.packed, RemoteFile):
            last = self.packed.read_at(begin, _LINE_BREAK_BYTES)
        else:
            last = os.pread(self.packed.fileno(), _LINE_BREAK_BYTES, begin)
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
        if isinstance(self.packed, RemoteFile):
            self.packed.refuse_change()  # each range that was read is of the version of then
            return
        now = FileState.of(self.packed.fileno())
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
        return _digest(self.packed) == self.digest


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
        packed: _Packed
        size, digest = 0, ""
        if is_remote(name):
            packed = stack.enter_context(open_remote(name))
            state: FileState | None = FileState.elsewhere(packed.found)
            size, digest = packed.found.size, packed.found.digest()
        else:
            packed = stack.enter_context(_packed(name))
            state = FileState.of(packed.fileno())
            if state:
                packed.seek(0)
                size, digest = state.size, _digest(packed) if with_digest else ""
        damages: list[str] = []
        file = io.BufferedReader(packed, _BUFFER_BYTES)
        stream = stack.enter_context(_unpacked(file, size, damages))
        is_packed = stream is not file
        head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        _refuse_other_kinds(name, head)
        if head.startswith(_PARQUET):
            kind, text, encoding = Format.PARQUET, stream, ""
        else:
            encoding = _encoding(head)
            text = _as_utf8(stream, encoding, damages)
            kind = _format(text.peek(_HEAD_BYTES)[:_HEAD_BYTES])
        yield Opened(name, kind, text, packed, size, digest, encoding, state, is_packed, damages)


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


def listing_of(source: str) -> dict[str, Found]:
    """Return the files that a place holds now, with their identities, by name; sorted.

    Names that are hidden, or look unfinished, are left out.

    Args:
        source: A folder, a pattern or a URL.

    Raises:
        UsageWrong: There is no such folder or bucket, or it can't be listed.
        SourceUnavailable: There is no answer from where it lies.
    """
    found = list_remote(source) if is_remote(source) else _listing_of_folder(source)
    return {name: one for name, one in found.items() if _is_finished(name.rpartition("/")[2])}


def _is_finished(name: str) -> bool:
    return not name.startswith(_HIDDEN) and not name.endswith(UNFINISHED)


def _listing_of_folder(source: str) -> dict[str, Found]:
    path = Path(source).expanduser()
    is_folder = source.endswith("/") or path.is_dir()
    folder = path if is_folder else _fixed_part(path)
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise UsageWrong(f"The folder {folder} can't be listed: {error.strerror}.") from error
    names = files_of(str(path / "*" if is_folder else path))
    return {name: found for name in names if (found := look_at_file(name))}


def look_at_file(name: str) -> Found | None:
    """Return the identity of a file, of which nothing is read; None if it is not there.

    Raises:
        UsageWrong: It lies elsewhere, and may not be read.
        SourceUnavailable: There is no answer from where it lies.
    """
    if is_remote(name):
        return look_at_remote(name)
    state = FileState.of(name)
    return Found(state.size, "", state.changed_ns) if state else None


def _fixed_part(pattern: Path) -> Path:
    """Return the folder above the first part of a pattern that may match several names."""
    return next(
        (one.parent for one in reversed((pattern, *pattern.parents)) if _WILD.search(one.name)),
        pattern.parent,
    )


def _digest(packed: _Packed) -> str:
    """Return the digest of a file; its position stays as it was."""
    found = os.fstat(packed.fileno())
    known_by = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    if known_by not in _DIGESTS:
        at = packed.tell()
        packed.seek(0)
        content = hashlib.file_digest(packed, "sha256")  # type: ignore[arg-type]
        _DIGESTS[known_by] = content.hexdigest()[:24]
        packed.seek(at)
    return _DIGESTS[known_by]


def _unpacked(
    stream: io.BufferedReader[Any], size: int, damages: list[str]
) -> io.BufferedReader[Any]:
    head = stream.peek(_HEAD_BYTES)
    if head.startswith(_GZIP):
        return _as_stream(_gunzipped(stream), damages)
    if head.startswith((_ZSTD, *_ZSTD_SKIPPABLE)):
        return _as_stream(_unzstd(stream), damages)
    if 0 < size == len(head) and any(
        begin != head and begin.startswith(head) for begin in _BEGINNINGS
    ):
        damages.append("only its first bytes are there")
        return io.BufferedReader(io.BytesIO())
    return stream


def _gunzipped(stream: io.BufferedReader[Any]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=stream) as file:
        while piece := file.read1(_BUFFER_BYTES):
            yield piece


def _unzstd(stream: io.BufferedReader[Any]) -> Iterator[bytes]:
    """Yield the content of all frames, of which some may be empty or hold nothing of the file.

    Raises:
        EOFError: The last frame is cut off.
    """
    piece = b""
    while piece or (piece := stream.read(_ZSTD_STEP_BYTES)):
        frame = zstd.ZstdDecompressor()
        while piece and not frame.eof:
            yield frame.decompress(piece)
            piece = frame.unused_data if frame.eof else stream.read(_ZSTD_STEP_BYTES)
        if not frame.eof:
            raise EOFError("the last frame is cut off")


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


def _as_utf8(
    stream: io.BufferedReader[Any], encoding: str, damages: list[str]
) -> io.BufferedReader[Any]:
    if encoding != "utf-8":
        return _as_stream(_recoded(stream, encoding), damages)
    if stream.peek(len(_BOM)).startswith(_BOM):
        stream.read(len(_BOM))
    return stream


def _recoded(stream: io.BufferedReader[Any], encoding: str) -> Iterator[bytes]:
    """Yield a text in another encoding as UTF-8; what can't be decoded becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    begun = False
    while piece := stream.read1(_BUFFER_BYTES):
        text = decoder.decode(piece)
        if not begun:
            text, begun = text.removeprefix("\ufeff"), bool(text)
        yield text.encode()
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


class FileState(NamedTuple):
    """The identity of a file's content at one moment: inode, size and times.

    Attributes:
        inode: Of a file that lies elsewhere, a number made of its version: like a file that was
            replaced under its name, it has another one then.
        changed_ns: The time of the last write, which anybody may set.
        inode_changed_ns: The time when that, or anything else of the inode, was last changed or
            set.
    """

    device: int
    inode: int
    size: int
    changed_ns: int
    inode_changed_ns: int

    @classmethod
    def elsewhere(cls, found: Found) -> Self:
        """Return the state of a file in a bucket or on a web server."""
        return cls(0, int(found.digest()[:12], 16), found.size, found.changed_ns, 0)

    @classmethod
    def of(cls, file: str | os.PathLike[str] | int) -> Self | None:
        """Return the state of a path, a URL or an open descriptor; None if it is no regular file.

        Raises:
            UsageWrong: A URL can't be read.
            SourceUnavailable: There is no answer from where it lies.
        """
        if isinstance(file, str) and is_remote(file):
            remote = look_at_remote(file)
            return cls.elsewhere(remote) if remote else None
        try:
            found = os.stat(file)  # noqa: PTH116 - a descriptor has no Path
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

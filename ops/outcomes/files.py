"""Files of outcomes: rows as NDJSON or Parquet, and the folder that a file appears in as a whole.

Where files go is one thing, `Target`, that `open_target` makes of a folder's path or a URL.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Protocol

import orjson

from segrelay.ops.terminal.moments import shown_ms, shown_us
from segrelay.producer.sources.remote import Bucket
from segrelay.worker.contract.outcomes import FIELD_PREFIX, OutcomeRow
from segrelay.worker.contract.settings.urls import BUCKETS
from segrelay.worker.errors import LeaseLost, OperationsMustAct, SourceUnavailable, UsageWrong

Format = Literal["ndjson", "parquet"]
SUFFIXES: Final[dict[str, Format]] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
NAME_PREFIX: Final = "outcomes-"
_MODE: Final = 0o640
_GROUP_ROWS: Final = 50_000
"""The rows of a row group of Parquet; as many are held in memory."""


def format_of(name: str) -> Format:
    """Return the format that a file's name tells.

    Raises:
        UsageWrong: It tells none.
    """
    found = SUFFIXES.get(Path(name).suffix.lower())
    if found is None:
        raise UsageWrong(f"{name}: name it .ndjson or .parquet, which says what is written.")
    return found


class RowFile(Protocol):
    """A file that takes rows."""

    def write(self, rows: Sequence[OutcomeRow]) -> None:
        """Write some rows."""

    def close(self) -> None:
        """Write the rows that are still held back; the stream stays open."""


def row_file(kind: Format, stream: BinaryIO, fields: Sequence[str]) -> RowFile:
    """Return a writer of rows.

    Args:
        kind: The format.
        stream: Open for writing.
        fields: The fields of the profile that the rows hold.

    Raises:
        OperationsMustAct: It needs an extra that is not installed.
    """
    return _ParquetFile(stream, fields) if kind == "parquet" else _NdjsonFile(stream, fields)


class _NdjsonFile:
    def __init__(self, stream: BinaryIO, fields: Sequence[str]) -> None:
        self._stream = stream
        self._fields = fields

    def write(self, rows: Sequence[OutcomeRow]) -> None:
        lines = [orjson.dumps(document_of(row, self._fields)) for row in rows]
        if lines:
            self._stream.write(b"\n".join([*lines, b""]))

    def close(self) -> None:
        self._stream.flush()


def document_of(row: OutcomeRow, fields: Sequence[str] = ()) -> dict[str, Any]:
    """Return a row as a document, with fields of its profile; null is what there is none of."""
    document = {
        "id": row.id,
        "time": shown_ms(row.time_ms),
        "person": row.person or None,
        "audience": row.audience or None,
        "direction": row.direction or None,
        "event_time": shown_us(row.event_time_us) if row.event_time_us else None,
        "destination": row.destination,
        "trigger": row.trigger,
        "lane": row.lane,
        "template_version": row.template or None,
        "outcome": row.outcome,
        "reason": row.reason or None,
        "status": row.status or None,
        "attempts": row.attempts,
        "counts": row.counts,
    }
    return document | {FIELD_PREFIX + name: row.fields.get(name) for name in fields}


class _ParquetFile:
    """A Parquet file; fields of the profile are texts in it, those that are none as JSON."""

    def __init__(self, stream: BinaryIO, fields: Sequence[str]) -> None:
        try:
            self._arrow: Any = import_module("pyarrow")
            parquet: Any = import_module("pyarrow.parquet")
        except ImportError as error:
            raise OperationsMustAct(
                "Parquet needs an extra that is not installed: pip install 'segrelay[parquet]'."
            ) from error
        arrow = self._arrow
        text, code = arrow.string(), arrow.dictionary(arrow.int32(), arrow.string())
        kinds = {
            "id": text,
            "time": arrow.timestamp("ms", tz="UTC"),
            "person": text,
            "audience": code,
            "direction": code,
            "event_time": arrow.timestamp("us", tz="UTC"),
            "destination": code,
            "trigger": code,
            "lane": code,
            "template_version": code,
            "outcome": code,
            "reason": code,
            "status": arrow.int16(),
            "attempts": arrow.int32(),
            "counts": arrow.int8(),
        }
        self._fields = fields
        self._kinds = kinds | {FIELD_PREFIX + name: text for name in fields}
        self._schema = arrow.schema(list(self._kinds.items()))
        self._writer = parquet.ParquetWriter(stream, self._schema, compression="zstd")
        self._rows: list[OutcomeRow] = []

    def write(self, rows: Sequence[OutcomeRow]) -> None:
        self._rows += rows
        if len(self._rows) >= _GROUP_ROWS:
            self._write()

    def close(self) -> None:
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if not self._rows:
            return
        *columns, profiles = zip(*self._rows, strict=True)
        values = [[each or None for each in column] for column in columns]
        values[_ATTEMPTS] = list(columns[_ATTEMPTS])
        values += [[_as_text(own.get(name)) for own in profiles] for name in self._fields]
        arrays = [
            self._arrow.array(column, kind)
            for column, kind in zip(values, self._kinds.values(), strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []


_ATTEMPTS: Final = OutcomeRow._fields.index("attempts")


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


class Target(Protocol):
    """A place in which a file appears as a whole, or not at all."""

    def put(
        self, name: str, write: Callable[[BinaryIO], None], confirm: Callable[[], None]
    ) -> None:
        """Write a file, unless it is there already.

        Args:
            name: The file's name, which is the same for the same content.
            write: Writes the content.
            confirm: Called before the file appears; raises `LeaseLost` if it must not.

        Raises:
            LeaseLost: Somebody else writes it by now.
            OperationsMustAct: It can't be written.
        """


def open_target(url: str) -> Target:
    """Return the place that a path or a URL names.

    Raises:
        OperationsMustAct: There is no such kind of place.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return Folder(Path(url))
    if scheme == "file":
        return Folder(Path(rest))
    if scheme in BUCKETS:
        return InBucket(url)
    raise OperationsMustAct(
        f"outcomes.folder: {scheme}:// can't be written to; name a folder, or s3://, gs:// or az://."
    )


class InBucket:
    """A place in a bucket, where an object appears as a whole.

    Its content is gathered first: some 80 MB at most, see `FILE_BYTES` of `writing`.
    """

    def __init__(self, url: str, bucket: Callable[[str], Bucket] = Bucket) -> None:
        self._url = url.rstrip("/")
        self._bucket = bucket

    def put(
        self, name: str, write: Callable[[BinaryIO], None], confirm: Callable[[], None]
    ) -> None:
        """Write an object, unless it is there already; see `Target`."""
        url = f"{self._url}/{name}"
        try:
            bucket = self._bucket(url)
            if bucket.has(url):
                return
            content = io.BytesIO()
            write(content)
            confirm()
            bucket.put(url, content.getvalue())
        except UsageWrong as error:
            raise OperationsMustAct(f"Outcomes can't be written: {error.message}") from error
        except SourceUnavailable as error:
            kind = type(error.__cause__).__name__
            raise OperationsMustAct(
                f"Outcomes can't be written: {url} can't be reached ({kind})."
            ) from error


class Folder:
    """A folder on this machine, or a mounted one.

    A file is written under a temporary name and renamed. Whoever writes it again, because the
    writer before seems dead, removes that temporary file first: so one that only stood still can't
    rename it any more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(
        self, name: str, write: Callable[[BinaryIO], None], confirm: Callable[[], None]
    ) -> None:
        """Write a file, unless it is there already; see `Target`."""
        try:
            self._put(name, write, confirm)
        except OSError as error:
            raise OperationsMustAct(
                f"Outcomes can't be written to {self._path} ({error.strerror or error})."
            ) from error

    def _put(
        self, name: str, write: Callable[[BinaryIO], None], confirm: Callable[[], None]
    ) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        self._remove(self._path.glob(f".{name}.*"))
        whole = self._path / name
        if whole.exists():
            return
        part = self._path / f".{name}.{os.getpid()}-{os.urandom(4).hex()}"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
            with os.fdopen(descriptor, "wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            confirm()
            try:
                part.rename(whole)
            except FileNotFoundError:
                raise LeaseLost("Another worker writes this file of outcomes by now.") from None
        finally:
            self._remove([part])
        self._sync()

    @staticmethod
    def _remove(files: Iterable[Path]) -> None:
        for file in files:
            with suppress(FileNotFoundError):
                file.unlink()

    def _sync(self) -> None:
        """Write the name of the file to the disk, too."""
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Files of outcomes: rows as NDJSON or Parquet, each file whole or not there."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import orjson

from segrelay.ops.terminal.console import private_file
from segrelay.ops.terminal.moments import shown_ms, shown_us
from segrelay.producer.sources.remote import Bucket
from segrelay.worker.contract.outcomes import OutcomeRow
from segrelay.worker.contract.settings.urls import BUCKETS
from segrelay.worker.errors import OperationsMustAct, UsageWrong

Format = Literal["ndjson", "parquet"]
SUFFIXES: Final[dict[str, Format]] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
_COLUMNS: Final = (
    "id", "time", "person", "audience", "direction", "event_time", "destination", "trigger", "lane",
    "template_version", "outcome", "reason", "status", "attempts", "message", "counts",
)  # fmt: skip
"""The names of the columns, in the order of the fields of `OutcomeRow`."""
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


def write_rows(kind: Format, stream: BinaryIO, rows: Iterable[OutcomeRow]) -> None:
    """Write rows to a stream, which stays open.

    Raises:
        OperationsMustAct: It needs an extra that is not installed.
    """
    if kind == "parquet":
        _write_parquet(stream, rows)
        return
    stream.writelines(
        orjson.dumps(document_of(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows
    )
    stream.flush()


def document_of(row: OutcomeRow) -> dict[str, Any]:
    """Return a row as a document, with null for the fields that it does not have."""
    document = dict(zip(_COLUMNS, (value or None for value in row), strict=True))
    return document | {
        "time": shown_ms(row.time_ms),
        "event_time": shown_us(row.event_time_us) if row.event_time_us else None,
        "attempts": row.attempts,
        "counts": row.counts,
    }


def _write_parquet(stream: BinaryIO, rows: Iterable[OutcomeRow]) -> None:
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise OperationsMustAct(
            "Parquet needs an extra that is not installed: pip install 'segrelay[parquet]'."
        ) from error
    text, code = arrow.string(), arrow.dictionary(arrow.int32(), arrow.string())
    kinds = dict.fromkeys(_COLUMNS, code) | {
        "id": text,
        "time": arrow.timestamp("ms", tz="UTC"),
        "person": text,
        "event_time": arrow.timestamp("us", tz="UTC"),
        "status": arrow.int16(),
        "attempts": arrow.int32(),
        "counts": arrow.int8(),
    }
    schema, remaining = arrow.schema(list(kinds.items())), iter(rows)
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        while group := list(islice(remaining, _GROUP_ROWS)):
            columns = list(zip(*group, strict=True))
            values = [[each or None for each in column] for column in columns]
            values[_ATTEMPTS] = list(columns[_ATTEMPTS])
            arrays = map(arrow.array, values, kinds.values())
            writer.write_table(arrow.Table.from_arrays(list(arrays), schema=schema))


_ATTEMPTS: Final = OutcomeRow._fields.index("attempts")


def refuse_existing(address: str) -> None:
    """Refuse to write to an address at which something is.

    Raises:
        UsageWrong: There is, or nothing can be written there.
    """
    if Bucket(address).has() if _is_bucket(address) else Path(address).exists():
        raise UsageWrong(f"{address}: is there already; name a new file.")


def put(address: str, write: Callable[[BinaryIO], None]) -> None:
    """Write a file that appears as a whole, unless it is there already.

    Args:
        address: A path, or a URL of a bucket; the content of an object is gathered in memory.
        write: Writes the content.

    Raises:
        UsageWrong: It can't be written there, and is not there.
        SourceUnavailable: The bucket can't be reached; the object may be there.
    """
    if _is_bucket(address):
        bucket = Bucket(address)
        if not bucket.has():
            content = io.BytesIO()
            write(content)
            bucket.put(content.getvalue())
        return
    whole = Path(address)
    if whole.exists():
        return
    part = whole.with_name(f".{whole.name}.part")
    try:
        with private_file(part) as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(whole)
    except OSError as error:
        raise UsageWrong(f"{address} can't be written ({error.strerror or error}).") from error
    finally:
        part.unlink(missing_ok=True)


def _is_bucket(address: str) -> bool:
    scheme, separator, _ = address.partition("://")
    if separator and scheme not in BUCKETS:
        raise UsageWrong(f"{scheme}:// can't be written to; name a file, or s3://, gs:// or az://.")
    return bool(separator)

"""Rows of Parquet, with the optional extra `segrelay[parquet]` (pyarrow)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final

from producer.events.payloads import Payload
from producer.sources.opening import STANDARD_INPUT, Opened
from worker.errors import UsageWrong

_BATCH_ROWS: Final = 1_000


def read_parquet(opened: Opened) -> Iterator[Payload]:
    """Yield a payload for each row; its line is the number of the row, from 1.

    A file that is packed once more is unpacked into a temporary one, since its end is read first.

    Raises:
        UsageWrong: pyarrow is not installed, or the file is a pipe.
    """
    if opened.name == STANDARD_INPUT or not opened.size:
        raise UsageWrong("Parquet can't be read from a pipe: name the file.")
    try:
        parquet = import_module("pyarrow.parquet")
        arrow = import_module("pyarrow")
    except ImportError as error:
        raise UsageWrong(
            f"{opened.name} is Parquet, which needs an extra: pip install 'segrelay[parquet]'."
        ) from error
    number = 0
    with ExitStack() as stack:
        file: BinaryIO = opened.stream
        if opened.is_packed:
            file = stack.enter_context(TemporaryFile())
            copyfileobj(opened.stream, file)
        if opened.damages:
            return
        try:
            for batch in parquet.ParquetFile(file).iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Payload(b"", _plain(row), number)
        except (arrow.ArrowException, OSError) as error:
            opened.damages.append(f"row {number + 1} can't be read ({str(error).rstrip('.')})")


def _plain(value: Any) -> Any:
    """Return a value in the types of JSON; fields that are null are left out."""
    match value:
        case dict():
            return {str(k): _plain(v) for k, v in value.items() if v is not None}
        case list():
            return [_plain(each) for each in value]
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return value

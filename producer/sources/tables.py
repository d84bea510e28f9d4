"""Rows of tables: CSV, and Parquet with the optional extra `segrelay[parquet]` (pyarrow).

The separator and header of a CSV file are found by looking; lists and maps are joined by `&`, as
Lytics joins them. Its values stay texts, as Lytics' own webhook often sends them, and an empty cell
is a field that the profile does not have.
"""

from __future__ import annotations

import base64
import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from difflib import SequenceMatcher
from importlib import import_module
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final, Self
from urllib.parse import unquote_plus

import orjson

from segrelay.producer.events.payloads import LARGEST_EXACT, Payload, text_of
from segrelay.producer.sources.opening import LARGEST_PAYLOAD_BYTES, STANDARD_INPUT, Opened
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import UsageWrong

LARGEST_FIELD_BYTES: Final = 1024 * 1024
"""The largest field, in bytes: a larger one shows that a quote is not closed."""
LIST_COLUMNS: Final = ("segments", "_segments", "segments_all")
"""The columns that hold lists in every export of Lytics."""
_SEPARATORS: Final = ",;\t|"
_SHOWN_COLUMNS: Final = 8
_BATCH_ROWS: Final = 1_000
_KEPT_OF_TOO_LARGE: Final = 1_024
_LINE_ENDS: Final = ("\n", "\r")
_RECODE: Final = "recode the file, for example with `iconv -f windows-1252 -t utf-8`"


@dataclass(frozen=True, slots=True)
class Columns:
    """The mapping from columns of a CSV file to fields.

    Args:
        identity: The field that a profile must have, to see whether there is a header.
        names: The names of the columns, where the file has no header.
        renamed: The names of fields, by the name of their column.
        lists: The fields whose values are lists, joined by `&`.
        maps: The fields whose values are maps, `key=value` joined by `&`.
    """

    identity: str = "email"
    names: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()


def read_csv(opened: Opened, columns: Columns) -> Iterator[Payload]:
    """Yield a payload for each row, with the line in which the row begins.

    Raises:
        UsageWrong: It can't be told which column is which.
    """
    csv.field_size_limit(LARGEST_FIELD_BYTES)
    text = io.TextIOWrapper(opened.stream, encoding="utf-8", errors="surrogateescape", newline="")
    try:
        yield from _rows(opened, text, columns)
    finally:
        text.detach()


class _LineTooLarge(Exception):  # noqa: N818 - it ends in `read_csv`
    """A line is larger than a row may be."""


class _CsvLines:
    """The lines of a CSV file; those of a broken row can be read again as rows.

    A line that is too large stands among them as None.
    """

    def __init__(self, first: str, rest: io.TextIOWrapper) -> None:
        self._rest = rest
        self._again: deque[str | None] = deque([first] if first else [])
        self._taken: list[str] = []
        self._size = 0
        self._is_read = False
        self.line = 1
        """The line at which the next row begins."""
        self.ends_line = True
        """True if the last row ended with a line break."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else _line_of(self._rest)
        if line == "":
            self._is_read = True
            raise StopIteration
        self._size += LARGEST_PAYLOAD_BYTES if line is None else len(line)
        if self._taken and self._size > LARGEST_PAYLOAD_BYTES:
            self._again.appendleft(line)
            raise csv.Error(f"the row is larger than {LARGEST_PAYLOAD_BYTES} bytes")
        self._taken.append(line or "")
        if line is None:
            raise _LineTooLarge
        return line

    def end_row(self) -> int:
        """End a row, and return the line in which it begins."""
        began = self.line
        self.line += len(self._taken)
        self.ends_line = all(line.endswith(_LINE_ENDS) for line in self._taken[-1:])
        self._taken.clear()
        self._size = 0
        return began

    @property
    def is_at_end(self) -> bool:
        """Say whether no row follows the last one, as far as that is known already.

        It is known of a row without a line break, and behind a quote that is never closed.
        """
        return not self.ends_line or (self._is_read and not self._again)

    def end_broken_row(self) -> tuple[int, str]:
        """End a broken row; return number and text of its first line. Its others are read again."""
        first, *others = self._taken
        self._again.extendleft(reversed(others))
        self._taken = [first]
        return self.end_row(), first


def _line_of(text: io.TextIOWrapper) -> str | None:
    """Return the next line, "" at the end; None for one that is too large, which is passed over."""
    line = piece = text.readline(LARGEST_PAYLOAD_BYTES)
    while len(piece) == LARGEST_PAYLOAD_BYTES and not piece.endswith(_LINE_ENDS):
        piece = text.readline(LARGEST_PAYLOAD_BYTES)
    return line if piece is line else None


def _rows(opened: Opened, text: io.TextIOWrapper, columns: Columns) -> Iterator[Payload]:
    name = opened.name
    first = _line_of(text)
    if first is None:
        raise UsageWrong(f"{name}: line 1 is larger than {LARGEST_PAYLOAD_BYTES} bytes.")
    lines = _CsvLines(first, text)
    reader = csv.reader(lines, delimiter=_separator(first), strict=True)
    if columns.names:
        header: Sequence[str] = columns.names
    else:
        header = _header(name, _first_row(name, reader), columns)
        lines.end_row()
        if not (lines.ends_line or opened.is_packed):
            opened.damages.append("its only line has no line break")
    fields = [columns.renamed.get(each.strip(), each.strip()) for each in header]
    has_short_rows = False
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _LineTooLarge:
            message = f"The line is larger than the {LARGEST_PAYLOAD_BYTES} bytes that are read."
            yield Payload(b"", None, lines.end_row(), error=message, reason=Refusal.TOO_LARGE)
            continue
        except csv.Error as error:
            line, broken = lines.end_broken_row()
            if lines.is_at_end:
                opened.damages.append(f"a quote of its last row, line {line}, is not closed")
            broken = broken if len(broken) <= LARGEST_FIELD_BYTES else broken[:_KEPT_OF_TOO_LARGE]
            kept = broken.rstrip("\r\n").encode(errors="replace")
            yield Payload(kept, None, line, error=f"Not a row of CSV: {error}.")
            continue
        line = lines.end_row()
        if not cells:
            continue
        row = _row(cells, fields, columns, line)
        is_short = len(cells) < len(fields)
        if lines.is_at_end and (opened.damages or row.error or (is_short and not has_short_rows)):
            opened.damages.append(f"its last row, line {line}, is cut off")
            yield Payload(_text(cells), None, line, error="The row is cut off.")
            continue
        has_short_rows |= is_short
        yield row


def _first_row(name: str, reader: Iterator[list[str]]) -> list[str]:
    try:
        return next(reader, [])
    except csv.Error as error:
        raise UsageWrong(f"{name}: its first line is not a row of CSV: {error}.") from error


def _separator(line: str) -> str:
    """Return the separator that splits the first line most often, outside of quotes."""
    outside = "".join(line.split('"')[::2])
    return max(_SEPARATORS, key=outside.count)


def _header(name: str, cells: Sequence[str], columns: Columns) -> Sequence[str]:
    names = [cell.strip() for cell in cells]
    if any(map(_is_damaged, names)):
        raise UsageWrong(f"{name}: line 1 holds bytes that are no UTF-8; {_RECODE}.")
    if columns.identity in {columns.renamed.get(each, each) for each in names}:
        return names
    identity = columns.identity
    if any("@" in each or each.isdigit() for each in names):
        raise UsageWrong(
            f"{name} has no header that names the identity field '{identity}'. Name its columns, "
            f"for example --columns {identity},first_name."
        )
    nearest = max(
        filter(None, names),
        key=lambda each: SequenceMatcher(None, each.lower(), identity).ratio(),
        default="E-mail",
    )
    shown = ", ".join(names[:_SHOWN_COLUMNS])
    more = "" if len(names) <= _SHOWN_COLUMNS else ", …"
    raise UsageWrong(
        f"{name} has the columns {shown}{more}, and none is the identity field '{identity}'. Say "
        f"in the configuration which one is, for example "
        f'[producer.backfill] columns = {{ "{nearest}" = "{identity}" }}.'
    )


def _row(cells: Sequence[str], fields: Sequence[str], columns: Columns, line: int) -> Payload:
    if len(cells) > len(fields):
        wanted = plural(len(fields), "column")
        message = f"The row has {plural(len(cells), 'cell')}, the table {wanted}."
        return Payload(_text(cells), None, line, error=message)
    profile: dict[str, Any] = {}
    for name, cell in zip(fields, cells, strict=False):
        if cell and name:
            profile[name] = _value(name, cell, columns)
    if any(_is_damaged(cell) for cell in cells):
        message = f"The row holds bytes that are no UTF-8; {_RECODE}."
        return Payload(_text(cells), None, line, error=message, reason=Refusal.UNREADABLE)
    return Payload(b"", profile, line)


def _value(name: str, cell: str, columns: Columns) -> Any:
    if name in LIST_COLUMNS or name in columns.lists:
        return [unquote_plus(each) for each in cell.split("&") if each]
    if name in columns.maps:
        pairs = (each.partition("=") for each in cell.split("&") if each)
        return {unquote_plus(key): unquote_plus(value) for key, _, value in pairs}
    return cell


def _is_damaged(cell: str) -> bool:
    return not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell)


def _text(cells: Sequence[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue().rstrip("\r\n").encode(errors="replace")


def read_parquet(opened: Opened) -> Iterator[Payload]:
    """Yield a payload for each row of a Parquet file; its line is its number, from 1.

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
    with ExitStack() as stack:
        file: BinaryIO = opened.stream
        if opened.is_packed:
            file = stack.enter_context(TemporaryFile())
            copyfileobj(opened.stream, file)
        if opened.damages:
            return
        number = 0
        try:
            for row in rows_of_batches(parquet.ParquetFile(file).iter_batches(_BATCH_ROWS)):
                number = row.line
                yield row
        except (arrow.ArrowException, OSError) as error:
            why = str(error).rstrip(".")
            opened.damages.append(f"row {number + 1} can't be read ({why})")


def rows_of_batches(batches: Iterable[Any]) -> Iterator[Payload]:
    """Yield a payload for each row of batches of Arrow; its line is its number, from 1.

    It has the row's JSON and no value: a text goes to another process in no time. A row that holds
    something without a form in JSON, such as a text that is no UTF-8, is a problem of its own, and
    keeps the fields that can be read.
    """
    number = 1
    for batch in batches:
        try:
            rows = _rows_of_batch(batch)
        except _WITHOUT_FORM:
            for at in range(len(batch)):
                yield _row_alone(batch.slice(at, 1), number + at)
        else:
            for at, row in enumerate(rows, number):
                yield Payload(row, None, at)
        number += len(batch)


_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS
"""The options of orjson, which would write some fractions of times wrong."""


_WITHOUT_FORM: Final = (TypeError, ValueError, OverflowError)
"""The errors for a value that has no form in JSON."""


def _rows_of_batch(batch: Any) -> list[bytes]:
    """Return the rows of a batch as JSON; columns that are null are left out.

    Raises:
        TypeError, ValueError, OverflowError: A value has no form in JSON.
    """
    last = {name: at for at, name in enumerate(batch.schema.names)}
    columns = [_values(batch.column(at)) for at in last.values()]
    return [
        orjson.dumps(
            {name: value for name, value in zip(last, values, strict=True) if value is not None},
            default=_plain,
            option=_OPTIONS,
        )
        for values in zip(*columns, strict=True)
    ]


def _row_alone(batch: Any, number: int) -> Payload:
    row: dict[str, Any] = {}
    damaged: list[str] = []
    for at, name in enumerate(batch.schema.names):
        try:
            row |= orjson.loads(_rows_of_batch(batch.select([at]))[0])
        except _WITHOUT_FORM:
            damaged.append(name)
    if not damaged:
        return Payload(text_of(row), None, number)
    columns = ", ".join(damaged)
    message = f"The row holds a value that is no text, number or time, in {columns}."
    return Payload(text_of(row), None, number, error=message)


def _values(column: Any) -> list[Any]:
    """Return the values of a column; raises as `_rows_of_batch`."""
    arrow = import_module("pyarrow")
    if arrow.types.is_timestamp(column.type):
        # What is finer than a microsecond is cut off, as in the times of events.
        column = column.cast(arrow.timestamp("us", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    return values


def _plain(value: Any) -> Any:
    """Return a value that JSON has no form for in one of its types."""
    match value:
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() if value == value.to_integral_value():
            return int(value) if abs(value) <= LARGEST_EXACT else str(int(value))
        case Decimal():
            return float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            raise TypeError(type(value).__name__)

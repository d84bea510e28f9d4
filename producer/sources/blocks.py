"""Blocks: sources in pieces of about a megabyte, numbered, the same in every run.

So a job can go on where it stopped. JSON objects are cut where a line begins with `{`, which needs
no parser: whoever gets a block parses it, in a process of its own.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import BinaryIO, Final, NamedTuple

from segrelay.producer.events.payloads import Payload, values_of
from segrelay.producer.sources.opening import Format, Opened
from segrelay.producer.sources.reading import (
    LARGEST_PAYLOAD_BYTES,
    OnDamage,
    ignore_damage,
    read_payloads,
)
from segrelay.producer.sources.tables import Columns, cut_parquet, read_csv, rows_of_part

BLOCK_BYTES: Final = 1_000_000
BLOCK_ROWS: Final = 1_000
_CUT: Final = b"\n{"
_STEP_BYTES: Final = 1 << 20
_LARGEST_BLOCK_BYTES: Final = 2 * LARGEST_PAYLOAD_BYTES
_PARSED_ROW_BYTES: Final = 1_000
"""The bytes that count for a parsed row of CSV, of which no text is kept."""


BATCH_PAYLOADS: Final = 1_000
BATCH_BYTES: Final = 4 * 1024 * 1024
LIVE_SECONDS: Final = 0.7
"""The seconds after which live lines are published, so that each is in Redis within a second."""


def batches(
    payloads: Iterable[Payload | None],
    *,
    is_live: bool = False,
    stops: Callable[[], bool] = lambda: False,
) -> Iterator[Iterator[Payload]]:
    """Yield batches of a thousand payloads or 4 MB.

    A batch is read while it is gone through, which has to be done before the next one: so each
    payload can be dealt with, and its value dropped, while it is in the processor's cache.

    Args:
        payloads: None where none came for a while.
        is_live: End a batch also with what came in the last second, however little it is.
        stops: A function that says whether to stop reading. Of a live source, a batch ends with
            what was read; of others it is read to its end.
    """
    coming = iter(payloads)
    stopped = False

    def batch(first: Payload) -> Iterator[Payload]:
        nonlocal stopped
        count = size = 0
        begun = time.monotonic()
        for payload in chain((first,), coming):
            if payload is not None:
                count += len(values_of(payload.value))
                size += len(payload.text)
                yield payload
            waited = is_live and (payload is None or time.monotonic() - begun >= LIVE_SECONDS)
            stopped = is_live and stops()
            is_full = count >= BATCH_PAYLOADS or size >= BATCH_BYTES
            if is_full or waited or stopped:
                return

    for first in coming:
        if first is not None:
            yield batch(first)
        if stopped or stops():
            return


class Block(NamedTuple):
    """A piece of one file.

    Attributes:
        line: The line of its first row, from 1; of Parquet the row's number.
        text: JSON objects that are not parsed yet; b"" where there are rows.
        rows: Parsed.
        part: A part of a Parquet file, see `tables.cut_parquet`; b"" for other files.
    """

    line: int
    text: bytes = b""
    rows: tuple[Payload, ...] = ()
    part: bytes = b""

    def payloads(self) -> Iterator[Payload]:
        """Yield the rows, each with its line in the file."""
        if self.part:
            yield from rows_of_part(self.part, self.line)
        elif self.text:
            yield from _payloads(io.BytesIO(self.text), self.line)
        else:
            yield from self.rows


def blocks_of(opened: Opened, columns: Columns, *, first_rows: int = 0) -> Iterator[Block]:
    """Yield the blocks of one file.

    Args:
        opened: The file.
        columns: The way to read CSV.
        first_rows: The number of rows of the first block, if they are delivered first; 0 = as all.

    Raises:
        SourceDamaged: The file is not whole; its rows up to there were yielded.
        UsageWrong: It can't be told which column of the file is which.
    """
    line = 0
    try:
        for block in _blocks_of(opened, columns, first_rows):
            line = block.line
            yield block
    except OSError as error:
        opened.damages.append(f"it can't be read ({error.strerror or type(error).__name__})")
    opened.refuse_damage(f"behind the block of line {line}" if line else "from its beginning")


def _blocks_of(opened: Opened, columns: Columns, first_rows: int) -> Iterator[Block]:
    match opened.format:
        case Format.OBJECTS:
            return _cut(opened.stream, first_rows, opened.damages.append)
        case Format.ARRAY:
            rows = _payloads(opened.stream, on_damage=opened.damages.append)
            return grouped(rows, first_rows)
        case Format.CSV:
            return grouped(read_csv(opened, columns), first_rows)
        case Format.PARQUET:
            parts = cut_parquet(opened, BLOCK_ROWS, first_rows=first_rows)
            return (Block(row, part=part) for row, part in parts)
        case Format.EMPTY:
            return iter(())


def _cut(stream: BinaryIO, first_rows: int, on_damage: OnDamage) -> Iterator[Block]:
    """Yield blocks of a JSON text, cut before lines that begin with `{`."""
    # A block ends where the last line of it that begins with `{` begins, however much was read: so
    # the blocks are the same in every run. Without such a line it grows, up to a limit.
    line, left = 1, b""
    while True:
        piece = stream.read(_STEP_BYTES)
        text = left + piece
        at = _first_cut(text, first_rows) if first_rows else text.rfind(_CUT) + 1
        if not piece:
            break
        is_small = at <= 0 or (len(text) < BLOCK_BYTES and not first_rows)
        if is_small and len(text) < _LARGEST_BLOCK_BYTES:
            left = text
            continue
        block, left = (text[:at], text[at:]) if at > 0 else (text, b"")
        first_rows = 0
        yield Block(line, block)
        line += block.count(b"\n")
        if not left and len(block) - block.rfind(b"\n") > LARGEST_PAYLOAD_BYTES:
            left = _behind_line(stream)
            line += bool(left)
    if first_rows and 0 < at < len(text):
        yield Block(line, text[:at])
        line, text = line + text[:at].count(b"\n"), text[at:]
    if text:
        # It is told if the last block ends within a row.
        deque(_payloads(io.BytesIO(text), line, on_damage), maxlen=0)
        yield Block(line, text)


def _behind_line(stream: BinaryIO) -> bytes:
    """Skip the rest of a line that is too large; return the beginning of the next line.

    Whoever parses what was read of it says so: it is larger than a payload may be.
    """
    while piece := stream.read(_STEP_BYTES):
        _, ended, rest = piece.partition(b"\n")
        if ended:
            return rest or stream.read(_STEP_BYTES)
    return b""


def _first_cut(text: bytes, rows: int) -> int:
    """Return the offset behind the first `rows` objects of a text, or 0 if it has fewer."""
    at = 0
    for _ in range(rows):
        found = text.find(_CUT, at)
        if found < 0:
            return 0
        at = found + 1
    return at


def grouped(payloads: Iterable[Payload], first_rows: int = 0) -> Iterator[Block]:
    """Yield blocks of rows that are parsed already; see `blocks_of`."""
    rows: list[Payload] = []
    count = size = 0
    for payload in payloads:
        rows.append(payload)
        count += len(values_of(payload.value))
        size += len(payload.text) or _PARSED_ROW_BYTES
        if count >= (first_rows or BLOCK_ROWS) or size >= BLOCK_BYTES:
            yield Block(rows[0].line, rows=tuple(rows))
            rows, count, size, first_rows = [], 0, 0, 0
    if rows:
        yield Block(rows[0].line, rows=tuple(rows))


def _payloads(
    source: BinaryIO, first_line: int = 1, on_damage: OnDamage = ignore_damage
) -> Iterator[Payload]:
    """Yield the rows of a source that never pauses; an array in one line is many rows.

    Each is parsed only when it is asked for. So what becomes of a row, and the row itself, are gone
    from the processor's cache before the next one is parsed: many rows at once take half as long
    again.
    """
    for payload in read_payloads(source, first_line=first_line, on_damage=on_damage):
        if payload is None:
            continue
        if isinstance(payload.value, list) and payload.value and not payload.error:
            for index, value in enumerate(payload.value):
                yield Payload(b"", value, payload.line, index)
        else:
            yield payload

"""Blocks: sources in pieces of about a megabyte, numbered, the same in every run.

So a job can go on where it stopped. JSON objects are cut where a line begins with `{`, which needs
no parser: whoever gets a block parses it, in a process of its own.

A JSON text is a sequence of values: a line each, or pretty-printed one after the other, or the
elements of an array. What is broken is named with its line, and the rest is still read: a JSON text
never has a line break within a string, and `{` stands only behind `:`, `,`, `[` or at the start, so
that a value which broke off is noticed at the next line. Only an array ends where an
element of it is broken: nothing shows where the next one begins.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO, Final, NamedTuple

import orjson

from segrelay.producer.events.payloads import (
    SEGMENT_EVENTS,
    Payload,
    load,
    loads_exactly,
    reread,
    values_of,
)
from segrelay.producer.sources.opening import LARGEST_PAYLOAD_BYTES, Format, Lines, Opened
from segrelay.producer.sources.tables import Columns, read_csv, read_parquet
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import PayloadRefused

BLOCK_BYTES: Final = 1_000_000
BLOCK_ROWS: Final = 1_000
_CUT: Final = b"\n{"
_STEP_BYTES: Final = 1 << 20
_LARGEST_BLOCK_BYTES: Final = 2 * LARGEST_PAYLOAD_BYTES
_PARSED_ROW_BYTES: Final = 1_000
"""The bytes that count for a parsed row of CSV, of which no text is kept."""


OnDamage = Callable[[str], object]
"""A function that is told why a source is not whole, e.g. "the array of line 1 has no end"."""


def ignore_damage(why: str) -> None:
    """Ignore that a source is not whole: it is a part of a file, which others judge."""


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
        payloads: The payloads; None where none came for a while.
        is_live: True if a batch also ends with what came in the last second, however little it is.
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
        text: The JSON objects that are not parsed yet; b"" where there are rows.
        rows: The rows as payloads, parsed or as text.
    """

    line: int
    text: bytes = b""
    rows: tuple[Payload, ...] = ()

    def payloads(self) -> Iterator[Payload]:
        """Return the rows, each with its line in the file."""
        return _payloads(io.BytesIO(self.text), self.line) if self.text else map(reread, self.rows)


def blocks_of(opened: Opened, columns: Columns, *, first_rows: int = 0) -> Iterator[Block]:
    """Yield the blocks of one file.

    Args:
        opened: The file.
        columns: The way to read CSV.
        first_rows: The number of rows of the first block, if they are delivered first; 0 = as many
            as in any block.

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
            return grouped(read_parquet(opened), first_rows)
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


_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"
_BETWEEN: Final = _SPACE + b","
_SEPARATION: Final = re.compile(r"[ \t\r\n,]*+")
_OPENING: Final = (b"{", b"[")
_MAY_PRECEDE: Final = (b":", b",", b"[")
_EXTENTS: Final = json.JSONDecoder()
_KEPT_OF_TOO_LARGE: Final = 1_024


def read_payloads(
    source: Lines,
    *,
    largest_bytes: int = LARGEST_PAYLOAD_BYTES,
    first_line: int = 1,
    on_damage: OnDamage = ignore_damage,
) -> Iterator[Payload | None]:
    """Yield the payloads of a source; a line that is an array becomes one payload with a list.

    Yields None whenever the source has nothing for a while, so that what came before it can be
    written.

    Args:
        source: The bytes of UTF-8, with or without a byte order mark.
        largest_bytes: The largest size of a payload; a larger one is refused as `too_large`.
        first_line: The number of the line with which the source begins.
        on_damage: A function that is told at the end if the source ends within a payload, or with
            something that is none; and where an array is broken, behind which nothing is read.
    """
    reader = _PayloadReader(largest_bytes, on_damage)
    number = first_line - 1
    ended = True
    # A fragment is a line, or a part of one that is longer than `largest_bytes`: that bounds the
    # memory. `ended` says whether the fragment before ended its line.
    while (fragment := source.readline(largest_bytes)) != b"":
        if fragment is None:
            yield from reader.decode()
            yield None
            continue
        number += ended
        if number == first_line and ended:
            fragment = fragment.removeprefix(_BOM)
        begins, ended = ended, fragment.endswith(b"\n")
        if begins and not reader.is_busy:
            # Nearly all lines are whole values; looking for their extents would take longer.
            text = fragment.strip(_SPACE)
            try:
                value = loads_exactly(text)
            except orjson.JSONDecodeError:
                pass
            else:
                reader.has_arrays |= isinstance(value, list)
                yield Payload(text, value, number)
                continue
        yield from reader.feed(fragment, number, begins=begins, ends=ended)
        if reader.is_damaged:
            return
    yield from reader.end(is_line=ended)


class _PayloadReader:
    """A reader of values that are no line each, which finds where they end.

    Attributes:
        has_arrays: True if one of the values was an array.
        is_damaged: True if nothing more can be read.
    """

    def __init__(self, largest_bytes: int, on_damage: OnDamage) -> None:
        self.has_arrays = self.is_damaged = False
        self._largest = largest_bytes
        self._on_damage = on_damage
        self._held = bytearray()
        self._line = 0
        self._last = b""
        self._tried = 0
        self._array_line = 0
        self._index = 0
        self._skips_line = self._skips_value = False

    @property
    def is_busy(self) -> bool:
        """Say whether a value or an array is open, or something is skipped."""
        skips = self._skips_line or self._skips_value
        return bool(self._held or self._array_line or skips)

    def feed(self, text: bytes, number: int, *, begins: bool, ends: bool) -> Iterator[Payload]:
        """Take a line, or a piece of one; yield the values that end in it."""
        if self._skips_line:
            self._skips_line = not ends
            return
        is_opening = begins and text.lstrip(_SPACE)[:1] in _OPENING
        if is_opening and self._last not in _MAY_PRECEDE:
            self._skips_value = False
            # A line that begins so behind anything else begins a value of its own: the open one has
            # lost its end.
            if self._held:
                yield from self.decode(is_end=True)
                if self._array_line and self._held:
                    self._on_damage(f"line {self._line}, in an array, can't be read")
                yield from self._give_up()
        self._last = text.rstrip(_SPACE)[-1:] or self._last
        if self._skips_value:
            return
        self._line = self._line if self._held else number
        self._held += text
        # Only when there is twice as much: else a large value would be looked at for each line.
        if len(self._held) >= min(2 * self._tried, self._largest) or not ends:
            yield from self.decode()
        if len(self._held) > self._largest:
            yield self._payload(bytes(self._held[: self._largest + 1]))
            self._skips_line, self._skips_value = not ends, ends
            if self._array_line:
                self.is_damaged = self._array_line < number
                self._on_damage(f"line {self._line}, in an array, can't be read")
            self._drop()

    def decode(self, *, is_end: bool = False) -> Iterator[Payload]:
        """Yield the whole values in what is held, and go on holding the rest."""
        # Bytes that are no UTF-8 are carried along: their value is refused when it is loaded.
        text = self._held.decode("utf-8", "surrogateescape")
        begin = counted = 0
        while True:
            begin = _SEPARATION.match(text, begin).end()  # type: ignore[union-attr] # it may be ""
            self._line += text.count("\n", counted, begin)
            counted = begin
            if text.startswith("[", begin) and not self._array_line:
                self._array_line, self._index, self.has_arrays = self._line, 0, True
                begin += 1
                continue
            if text.startswith("]", begin) and self._array_line:
                self._array_line, self._index, begin = 0, 0, begin + 1
                continue
            try:
                _, end = _EXTENTS.raw_decode(text, begin)
            except (ValueError, RecursionError):
                break
            if end == len(text) and not is_end and text[end - 1] not in '}]"':
                break  # a number may go on
            yield self._payload(text[begin:end].encode("utf-8", "surrogateescape"))
            begin = end
        self._held = bytearray(text[begin:], "utf-8", "surrogateescape")
        self._tried = len(self._held)

    def end(self, *, is_line: bool) -> Iterator[Payload]:
        """Take the end of the source; `is_line`: its last line ends with a line break."""
        yield from self.decode(is_end=True)
        if self._array_line:
            begins = f"the array that begins in line {self._array_line} has no end"
            more = f", or can't be read behind line {self._line}" if self._held else ""
            self._on_damage(begins + more)
        elif self._held:
            is_row = is_line and self._last not in {b"{", *_MAY_PRECEDE}
            is_long = b"\n" in self._held.rstrip(_SPACE) and self._held.startswith(_OPENING)
            if self.has_arrays or not is_row or is_long:
                self._on_damage(f"what begins in line {self._line} has no end, or can't be read")
        yield from self._give_up()

    def _give_up(self) -> Iterator[Payload]:
        """Refuse what is held, but for its lines that are payloads themselves."""
        # Where a bracket is missing, the lines behind it were taken for a part of the value. Those
        # that are payloads by themselves are no loss of the broken one's.
        lines = bytes(self._held).split(b"\n")
        broken, began = bytearray(), self._line
        for number, line in enumerate(lines, self._line):
            value = _payload_alone(line) if len(lines) > 1 else None
            if value is None:
                began = began if broken else number
                broken += line + b"\n"
                continue
            yield from self._broken(bytes(broken), began)
            broken.clear()
            yield Payload(line.strip(_BETWEEN), value, number)
        yield from self._broken(bytes(broken), began)
        self._drop()

    def _drop(self) -> None:
        self._held.clear()
        self._tried = self._array_line = self._index = 0

    def _broken(self, text: bytes, line: int) -> Iterator[Payload]:
        if text := text.strip(_BETWEEN):
            self._line = line
            payload = self._payload(text)
            payload.error = payload.error or "Not a JSON value of its own."
            yield payload

    def _payload(self, text: bytes) -> Payload:
        index, self._index = self._index, self._index + bool(self._array_line)
        if len(text) > self._largest:
            message = f"A payload is larger than the {self._largest} bytes that are read."
            kept = text[:_KEPT_OF_TOO_LARGE]
            return Payload(kept, None, self._line, index, message, Refusal.TOO_LARGE)
        try:
            return Payload(text, load(text), self._line, index)
        except PayloadRefused as refusal:
            return Payload(text, None, self._line, index, refusal.message)


def _payload_alone(text: bytes) -> Any:
    try:
        value = loads_exactly(text.strip(_BETWEEN))
    except orjson.JSONDecodeError:
        return None
    is_payload = isinstance(value, dict) and (SEGMENT_EVENTS in value or "data" in value)
    return value if is_payload else None

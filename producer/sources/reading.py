"""Reading payloads from NDJSON or JSON, as a stream, in bounded memory.

A source is a sequence of JSON values: a line each, or pretty-printed one after the other, or the
elements of an array. What is broken is named with its line, and the rest is still read: a JSON text
never has a line break within a string, and `{` stands only behind `:`, `,`, `[` or at the start, so
that a value which broke off is noticed at the next line. Only an array of many lines ends where an
element of it is broken: nothing shows where the next one begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from segrelay.producer.events.payloads import SEGMENT_EVENTS, Payload, load
from segrelay.producer.events.values import loads_exactly
from segrelay.producer.sources.opening import Lines
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import PayloadRefused

LARGEST_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"
_BETWEEN: Final = _SPACE + b","
_SEPARATION: Final = re.compile(r"[ \t\r\n,]*+")
_OPENING: Final = (b"{", b"[")
_MAY_PRECEDE: Final = (b":", b",", b"[")
_EXTENTS: Final = json.JSONDecoder()
_KEPT_OF_TOO_LARGE: Final = 1_024


OnDamage = Callable[[str], object]
"""A function that is told why a source is not whole, e.g. "the array of line 1 has no end"."""


def ignore_damage(why: str) -> None:
    """Ignore that a source is not whole: it is a part of a file, which others judge."""


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
        source: Bytes of UTF-8, with or without a byte order mark.
        largest_bytes: The limit; what is larger is refused as `too_large`.
        first_line: Number of the line with which the source begins.
        on_damage: Told at the end if the source ends within a payload, or with something that is
            none; and where an array is broken, behind which nothing is read.
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
                yield from self._give_up()
        self._last = text.rstrip(_SPACE)[-1:] or self._last
        if self._skips_value:
            return
        self._line = self._line if self._held else number
        self._held += text
        # Only when there is twice as much: else a large value would be looked at for each line.
        if len(self._held) >= 2 * self._tried or not ends:
            yield from self.decode()
        if len(self._held) > self._largest:
            message = f"A payload is larger than the {self._largest} bytes that are read."
            kept = bytes(self._held[:_KEPT_OF_TOO_LARGE])
            yield Payload(kept, None, self._line, self._index, message, Refusal.TOO_LARGE)
            self._skips_line, self._skips_value = not ends, ends
            if 0 < self._array_line < number:
                self.is_damaged = True
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
            if self.has_arrays or not is_row or b"\n" in self._held.rstrip(_SPACE):
                self._on_damage(f"what begins in line {self._line} has no end, or can't be read")
        yield from self._give_up()

    def _give_up(self) -> Iterator[Payload]:
        """Refuse what is held, but for its lines that are payloads themselves."""
        # Where a bracket is missing, the lines behind it were taken for a part of the value. Those
        # that are payloads by themselves are no loss of the broken one's.
        lines = bytes(self._held).split(b"\n")
        broken, began = b"", self._line
        for number, line in enumerate(lines, self._line):
            value = _payload_alone(line) if len(lines) > 1 else None
            if value is None:
                began = began if broken else number
                broken += line + b"\n"
                continue
            yield from self._broken(broken, began)
            broken = b""
            yield Payload(line.strip(_BETWEEN), value, number)
        yield from self._broken(broken, began)
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

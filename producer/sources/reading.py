"""Reading payloads from NDJSON or JSON, as a stream, in bounded memory.

A source is a sequence of JSON values: a line each, or pretty-printed one after the other, or the
elements of an array. What is broken is named with its line, and the rest is still read:
a JSON text never has a line break within a string, and `{` stands only behind `:`, `,`, `[` or at
the start, so that a value which broke off is noticed at the next line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import orjson

from segrelay.producer.events.payloads import SEGMENT_EVENTS, Payload, load, text_of
from segrelay.producer.events.values import loads_exactly
from segrelay.producer.sources.opening import Lines
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import PayloadRefused

LARGEST_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_BETWEEN: Final = _SPACE + b","
_MAY_PRECEDE: Final = (b":", b",", b"[")
_KEPT_OF_TOO_LARGE: Final = 1_024
_DEEPEST: Final = 100_000
"""The depth of nesting at which the rest of a line is skipped; parsers give up at 1,024."""


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
            none.
    """
    reader = _PayloadReader(largest_bytes)
    number = first_line - 1
    ended = True
    # A fragment is a line, or a part of one that is longer than `largest_bytes`: that bounds the
    # memory. `ended` says whether the fragment before ended its line.
    while (fragment := source.readline(largest_bytes)) != b"":
        if fragment is None:
            yield None
            continue
        number += ended
        if number == first_line and ended:
            fragment = fragment.removeprefix(_BOM)
        began, ended = ended, fragment.endswith(b"\n")
        if began and ended:
            payload = reader.take_line(fragment, number)
            if payload is not None:
                yield payload
                continue
        yield from reader.feed(fragment, number, is_line=began and ended, ends_line=ended)
    yield from reader.end(number, on_damage, is_line=ended)


class _PayloadReader:
    """A reader that finds the values in a text, piece by piece, and makes payloads of them.

    `depth` counts the brackets within the value that is open; `in_array` says that the values are
    elements of an array that was opened and not yet closed. `amid_broken`: a value of several lines
    broke, and what follows is a part of it until something can be read again.
    """

    def __init__(self, largest_bytes: int) -> None:
        self._largest = largest_bytes
        self._depth = 0
        self._in_array = False
        self._array_line = 0
        self._index = 0
        self._open: list[tuple[int, bytes]] = []
        self._size = 0
        self._last = b""
        self._tail = b""
        self._broken: list[tuple[int, bytes]] = []
        self._broken_size = 0
        self._amid_broken = False
        self._skipping = False
        self._behind_array = False

    def take_line(self, text: bytes, number: int) -> Payload | None:
        """Take a line that is a whole value, as nearly all are; None if it has to be fed.

        It gives what `feed` would, in half the time.
        """
        if self._depth or self._in_array or self._tail or self._skipping or self._broken:
            return None
        stripped = text.strip(_SPACE)
        value = _value_of_line(stripped)
        if value is None:
            return None
        self._amid_broken = False
        self._behind_array |= isinstance(value[0], list)
        return Payload(stripped, value[0], number)

    def feed(
        self, text: bytes, number: int, *, is_line: bool, ends_line: bool
    ) -> Iterator[Payload]:
        """Take the next piece of the source.

        It belongs to line `number`, is all of it (`is_line`), or at least its end (`ends_line`).
        """
        if self._skipping:
            self._skipping = not ends_line
            return
        if not (self._depth or self._in_array or self._tail):
            # Nothing is open, so this may be a whole value, as each line of nearly all sources is:
            # parsing it takes a third of what looking for its brackets would.
            if not self._amid_broken:
                yield from self._close_broken()
            stripped = text.strip(_SPACE)
            value = _value_of_line(stripped) if is_line or not ends_line else None
            if value is not None:
                yield from self._close_broken()
                self._behind_array |= isinstance(value[0], list)
                yield Payload(stripped, value[0], number)
                return
        if self._depth and not self._tail and self._broke_off(text):
            yield from self._give_up()
            if not self._amid_broken:
                yield from self._close_broken()
        yield from self._scan(self._tail + text, number, ends_line=ends_line)

    def end(self, number: int, on_damage: OnDamage, *, is_line: bool) -> Iterator[Payload]:
        """Take the end of the source; `is_line`: its last line ends with a line break."""
        if self._open and not (is_line and self._is_broken_line(number)):
            on_damage(f"what begins in line {self._open[0][0]} has no end")
        elif self._in_array:
            on_damage(f"the array that begins in line {self._array_line} has no end")
        elif self._tail or (self._broken and (self._behind_array or not is_line)):
            on_damage(f"its last line, {number}, can't be read")
        if self._tail:
            self._note_broken(number, self._tail)
        yield from self._give_up()
        yield from self._close_broken()
        if self._in_array:
            message = f"The array that begins in line {self._array_line} is not closed."
            yield Payload(b"", None, number, self._index, message)

    def _is_broken_line(self, number: int) -> bool:
        """Say whether the open value is one line, and no line that others would go on with."""
        begun = self._open[0][0] == number and not self._in_array
        return begun and self._last not in {b"{", *_MAY_PRECEDE}

    def _broke_off(self, text: bytes) -> bool:
        # Within a value, `{` and `[` stand only behind one of `_MAY_PRECEDE`. A line that begins
        # with one behind anything else begins a value of its own: the open one has lost its end.
        starts = text.lstrip(_SPACE)[:1]
        return starts in (b"{", b"[") and self._last not in _MAY_PRECEDE

    def _scan(self, text: bytes, number: int, *, ends_line: bool) -> Iterator[Payload]:
        """Find the values that end in this text; keep what is open at its end."""
        self._tail = b""
        begin = 0
        # A token is a whole string, in which brackets mean nothing, a bracket, or a lone quote: a
        # string that has no end in this text. What stands before `begin` is done with.
        for token in _TOKEN.finditer(text):
            kind = text[token.start() : token.start() + 1]
            if kind == b'"':
                if len(token.group()) > 1:
                    continue
                yield from self._unfinished(text, begin, token.start(), number, ends_line=ends_line)
                return
            if kind in b"{[":
                if self._depth == 0:
                    yield from self._between(text[begin : token.start()], number)
                    begin = token.start()
                    if kind == b"[" and not self._in_array:
                        self._in_array, self._array_line, self._index = True, number, 0
                        begin = token.end()
                        continue
                self._depth += 1
                if self._depth > _DEEPEST:
                    yield from self._too_deep(number, text[begin:], ends_line=ends_line)
                    return
                continue
            if self._depth == 0:
                if kind == b"]" and self._in_array:
                    yield from self._between(text[begin : token.start()], number)
                    self._in_array, self._behind_array = False, True
                else:
                    self._note_broken(number, text[begin : token.end()])
                begin = token.end()
                continue
            self._depth -= 1
            if self._depth == 0:
                self._append(number, text[begin : token.end()])
                yield from self._complete()
                begin = token.end()
        yield from self._rest(text[begin:], number, ends_line=ends_line)

    def _rest(self, text: bytes, number: int, *, ends_line: bool) -> Iterator[Payload]:
        if self._depth:
            self._append(number, text)
            self._last = text.rstrip(_SPACE)[-1:] or self._last
            if self._size > self._largest and not (ends_line or self._in_array):
                yield from self._close_broken()
                yield self._too_large(self._open[0][0], self._open[0][1])
                self._pass_over(number, ends_line=ends_line)
        else:
            yield from self._between(text, number)
            self._skipping = not ends_line and len(text) >= self._largest

    def _unfinished(
        self, text: bytes, begin: int, quote: int, number: int, *, ends_line: bool
    ) -> Iterator[Payload]:
        """Take a string that is not closed: it is broken if the line ends, else more may come."""
        if not ends_line and len(text) - quote <= self._largest:
            if self._depth:
                self._append(number, text[begin:quote])
                self._tail = text[quote:]
            else:
                self._tail = text[begin:]
            return
        if not ends_line:
            yield self._too_large(number, text[begin:])
            self._pass_over(number, ends_line=ends_line)
            return
        self._append(number, text[begin:])
        yield from self._give_up()

    def _too_deep(self, number: int, text: bytes, *, ends_line: bool) -> Iterator[Payload]:
        """Report a value that is nested too deep for any parser, and go on in the next line."""
        yield from self._close_broken()
        message = f"A payload is nested more than {_DEEPEST:,} levels deep."
        began = self._open[0][0] if self._open else number
        yield Payload(text[:_KEPT_OF_TOO_LARGE], None, began, self._next_index(), message)
        self._pass_over(number, ends_line=ends_line)

    def _pass_over(self, number: int, *, ends_line: bool) -> None:
        """Drop the open value and the rest of its line; also an array that begins in that line."""
        self._open, self._size, self._depth = [], 0, 0
        self._skipping = not ends_line
        self._in_array = self._in_array and self._array_line < number

    def _append(self, number: int, text: bytes) -> None:
        self._size += len(text)
        if self._size <= self._largest or not self._open:
            self._open.append((number, text))

    def _complete(self) -> Iterator[Payload]:
        """Yield the payload of the open value, which has just ended."""
        number = self._open[0][0]
        text = b"".join(part for _, part in self._open)
        if self._size > self._largest:
            yield from self._close_broken()
            yield self._too_large(number, text)
        else:
            try:
                value = load(text)
            except PayloadRefused:  # its brackets match, and it is no JSON: {"a" 1}
                yield from self._give_up()
                yield from self._close_broken()
                return
            yield from self._close_broken()
            yield Payload(text, value, number, self._next_index())
        self._open, self._size = [], 0

    def _too_large(self, number: int, text: bytes) -> Payload:
        message = f"A payload is larger than the {self._largest} bytes that are read."
        kept = text[:_KEPT_OF_TOO_LARGE]
        return Payload(kept, None, number, self._next_index(), message, Refusal.TOO_LARGE)

    def _give_up(self) -> Iterator[Payload]:
        """Close the open value as broken, and yield its lines that are payloads themselves."""
        # Where a bracket is missing, the lines behind it were taken for a part of the value. Those
        # that are payloads by themselves are no loss of the broken one's.
        lines, self._open, self._size, self._depth = self._open, [], 0, 0
        self._amid_broken = self._in_array or len(lines) > 1
        for number, text in lines:
            value = _payload_alone(text) if len(lines) > 1 else None
            if value is None:
                self._note_broken(number, text)
            else:
                yield from self._close_broken()
                yield Payload(text.strip(_BETWEEN), value, number, self._next_index())

    def _between(self, text: bytes, number: int) -> Iterator[Payload]:
        """Yield the bare values between two values; note any other text there as broken."""
        text = text.strip(_BETWEEN)
        if not text:
            return
        values = None if self._amid_broken else _values_in(text)
        if values is None:
            self._note_broken(number, text)
            return
        for value in values:
            yield Payload(text_of(value), value, number, self._next_index())

    def _note_broken(self, number: int, text: bytes) -> None:
        self._broken_size += len(text)
        if self._broken_size <= self._largest or not self._broken:
            self._broken.append((number, text))

    def _close_broken(self) -> Iterator[Payload]:
        """Yield one payload with a problem for all broken text up to here."""
        self._amid_broken = False
        if not self._broken:
            return
        number = self._broken[0][0]
        text = b"".join(part for _, part in self._broken).strip(_SPACE)
        self._broken, self._broken_size = [], 0
        if text:
            yield Payload(text, None, number, self._next_index(), _complaint(text))

    def _next_index(self) -> int:
        if not self._in_array:
            return 0
        self._index += 1
        return self._index - 1


def _value_of_line(text: bytes) -> tuple[Any] | None:
    try:
        return (loads_exactly(text),)
    except orjson.JSONDecodeError:
        return None


def _payload_alone(text: bytes) -> Any:
    try:
        value = loads_exactly(text.strip(_BETWEEN))
    except orjson.JSONDecodeError:
        return None
    is_payload = isinstance(value, dict) and (SEGMENT_EVENTS in value or "data" in value)
    return value if is_payload else None


def _values_in(text: bytes) -> Iterable[Any] | None:
    try:
        return list(loads_exactly(b"[" + text + b"]"))
    except orjson.JSONDecodeError:
        return None


def _complaint(text: bytes) -> str:
    try:
        load(text)
    except PayloadRefused as refusal:
        return refusal.message
    return "Not a JSON value of its own."

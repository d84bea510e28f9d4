"""The body of a request on its way into Redis: it is read portion by portion, in bounded memory.

All members of a gzip body are unpacked, and never more than is asked for. A JSON text is split into
its payloads without building what they hold.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from segrelay.producer.events.payloads import Payload, load
from segrelay.producer.publishing.published import Published
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import PayloadRefused

_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_QUOTE, _ARRAY, _ARRAY_END = b'"[]'
_OPENING: Final = frozenset(b"{[")
_DEEPEST: Final = 1_024
"""The number of levels beyond which no parser of ours reads JSON."""

_MOST_TOKENS: Final = 3_000_000
"""The largest number of texts and brackets, which are looked at one by one: about three seconds."""
_BYTES_A_TOKEN: Final = 6

Extent = tuple[int, int]
"""The offsets of a payload in its text."""


def spans_of(text: bytes) -> Iterator[Extent]:
    """Yield the extent of each payload: elements of arrays, and values one after the other.

    What stands between them and is more than a comma is a payload, too: it can't be read, or is
    none. So nothing of a text is ever left out.

    Raises:
        ValueError: Its brackets or quotes don't match, it is nested deeper than 1,024 levels, or is
            made of more values than people's profiles are.
    """
    tokens = text.count(b'"') // 2 + text.count(b"{") + text.count(b"[")
    if tokens > max(_MOST_TOKENS, len(text) // _BYTES_A_TOKEN):
        raise ValueError("it is made of too many values")
    depth, begin, in_array = 0, len(_BOM) * text.startswith(_BOM), False
    for token in _TOKEN.finditer(text):
        kind = text[token.start()]
        if kind == _QUOTE:
            if token.end() - token.start() == 1:
                raise ValueError("a text is not closed")
            continue
        if kind in _OPENING:
            if depth == 0:
                yield from _between(text, begin, token.start())
                begin = token.start()
                if kind == _ARRAY and not in_array:
                    in_array, begin = True, token.end()
                    continue
            depth += 1
            if depth > _DEEPEST:
                raise ValueError(f"it is nested deeper than {_DEEPEST:,} levels")
        elif depth:
            depth -= 1
            if depth == 0:
                yield begin, token.end()
                begin = token.end()
        elif in_array and kind == _ARRAY_END:
            yield from _between(text, begin, token.start())
            in_array, begin = False, token.end()
        else:
            raise ValueError("a bracket closes nothing")
    if depth or in_array:
        raise ValueError("a bracket is not closed")
    yield from _between(text, begin, len(text))


def _between(text: bytes, begin: int, end: int) -> Iterator[Extent]:
    if text[begin:end].strip(_SPACE) not in (b"", b","):
        yield begin, end


_GZIP: Final = zlib.MAX_WBITS | 16
_STEP_BYTES: Final = 16 * 1024
"""The bytes that are unpacked in one step; as many are copied again behind each member's end."""
_MOST_MEMBERS: Final = 10_000
"""The largest number of gzip members: a tool may write one for each event."""


class BodyTooLarge(Exception):  # noqa: N818 - an answer, no error of ours
    """A body is larger than the receiver takes, or holds more payloads."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Unpacked(NamedTuple):
    """The content of a gzip body.

    Attributes:
        text: Of all members, one after the other.
        rest: The bytes behind the last whole member that are no gzip; b"" where all could be read.
    """

    text: bytes
    rest: bytes


def unpack(body: bytes, most: int) -> Unpacked:
    """Return the content of a gzip body, as far as its members are whole.

    Raises:
        BodyTooLarge: It unpacks to more than `most` bytes, or has more than 10,000 members.
    """
    view = memoryview(body)
    texts: list[bytes] = []
    size = begin = 0
    while begin < len(body):
        if len(texts) == _MOST_MEMBERS:
            raise BodyTooLarge(f"made of more than {_MOST_MEMBERS:,} gzip members")
        member = _member(view, begin, most - size)
        if member is None:
            break
        text, begin = member
        size += len(text)
        texts.append(text)
    rest = body[begin:]
    # Zeros behind the last member are padding, which gzip itself ignores.
    return Unpacked(b"".join(texts), rest if not texts or rest.strip(b"\0") else b"")


def _member(view: memoryview, begin: int, most: int) -> tuple[bytes, int] | None:
    """Return what a member holds and where it ends; None where it is damaged or cut off."""
    inflater = zlib.decompressobj(wbits=_GZIP)
    parts: list[bytes] = []
    size = 0
    while not inflater.eof and begin < len(view):
        step = view[begin : begin + _STEP_BYTES]
        begin += len(step)
        try:
            parts.append(inflater.decompress(step, most - size + 1))
        except zlib.error:
            return None
        size += len(parts[-1])
        if size > most:
            raise BodyTooLarge(f"larger than {most:,} bytes")
    return (b"".join(parts), begin - len(inflater.unused_data)) if inflater.eof else None


MOST_PAYLOADS: Final = 10_000
"""The largest number of payloads in a body. Lytics sends at most 1,000 (lytics.md, section 1)."""
SMALL_BYTES: Final = 1024 * 1024
"""The size up to which a text is parsed as a whole, which takes at most 30 MB of memory."""
MOST_VALUES: Final = 500_000
"""The largest number of values in a payload, which takes at most 50 MB as objects of Python."""


@dataclass(slots=True)
class Body:
    """One request's body, and how much of it is stored.

    Args:
        text: JSON: one payload, an array of them, or several of these one after the other.
        rest: The bytes that could not be unpacked, to be kept as they came; b"" where there are
            none.
        most: A body of more payloads is refused before anything of it is stored.

    Attributes:
        stored: The results of the payloads so far.
        taken: The number of payloads that `payloads` has handed out.
        refusal: The reason why nothing of it can be stored, ever.
    """

    text: bytes
    rest: bytes = b""
    most: int = MOST_PAYLOADS
    stored: Published = field(default_factory=Published)
    taken: int = 0
    refusal: BodyTooLarge | None = None
    _position: int = 0
    _count: int | None = None
    _spans: array[int] | None = field(default=None, repr=False)

    @property
    def is_ended(self) -> bool:
        """Say whether all of the body is stored, or nothing can be."""
        return self.refusal is not None or self._position == self._count

    def prepare(self) -> None:
        """Find the payloads of a large body, which may take seconds.

        Raises:
            BodyTooLarge: It holds more payloads than are taken.
        """
        if len(self.text) > SMALL_BYTES:
            self._split()

    def payloads(self) -> Iterator[Payload]:
        """Yield the payloads that are not stored yet; nothing where there is a `refusal`."""
        self.taken = self._position
        try:
            found = self._found()
        except BodyTooLarge as refusal:
            self.refusal = refusal
            return
        for payload in found:
            self.taken += 1
            yield payload

    def advance(self, stored: Published) -> None:
        """Record that the payloads that were taken are stored."""
        self.stored = self.stored + stored if self._position else stored
        self._position = self.taken

    def _found(self) -> Iterator[Payload]:
        if self._spans is None and len(self.text) <= SMALL_BYTES:
            try:
                value = load(self.text)
            except PayloadRefused:
                pass  # it may be several values, or an array with one that is broken
            else:
                values = value if isinstance(value, list) and value else [value]
                self._count_to(len(values))
                return self._parsed(values)
        if self._spans is None:
            self._split()
        return self._split_off()

    def _parsed(self, values: list[Any]) -> Iterator[Payload]:
        for index in range(self._position, len(values)):
            yield _payload(b"", values[index], index)
        yield from self._rest()

    def _split(self) -> None:
        spans = array("Q")
        try:
            for begin, end in spans_of(self.text):
                spans.extend((begin, end))
                if len(spans) > 2 * self.most:
                    raise _too_many(self.most)
        except ValueError:
            spans = array("Q")
        self._spans = spans or array("Q", (0, len(self.text)))
        self._count_to(len(self._spans) // 2)

    def _count_to(self, count: int) -> None:
        if count > self.most:
            raise _too_many(self.most)
        self._count = count + bool(self.rest)

    def _split_off(self) -> Iterator[Payload]:
        spans = self._spans or array("Q")
        for index in range(self._position, len(spans) // 2):
            begin, end = spans[2 * index : 2 * index + 2]
            yield _read(self.text[begin:end], index)
        yield from self._rest()

    def _rest(self) -> Iterator[Payload]:
        if self.rest and self._position < (self._count or 0):
            yield Payload(self.rest, None, error="This part of the body is no gzip, or is cut off.")


def _too_many(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"made of more than {most:,} payloads")


def _payload(text: bytes, value: Any, index: int) -> Payload:
    # An array within an array is no array of payloads.
    return Payload(text, [value] if isinstance(value, list) and value else value, index=index)


def _read(text: bytes, index: int) -> Payload:
    if len(text) > MOST_VALUES < text.count(b",") + text.count(b"{") + text.count(b"["):
        message = f"A payload holds more than the {MOST_VALUES:,} values that are read."
        return Payload(text, None, 0, index, message, Refusal.TOO_LARGE)
    try:
        return _payload(text, load(text), index)
    except PayloadRefused as refusal:
        return Payload(text, None, 0, index, refusal.message)


LARGE_BODIES_BYTES: Final = 48 * 1024 * 1024
"""The bytes of other requests above which the sender of a large body is asked to send it again."""
ALL_BODIES_BYTES: Final = 2 * LARGE_BODIES_BYTES
"""The bytes of other requests above which the sender of any body is asked to send it again."""


class NoMemory(Exception):  # noqa: N818 - an answer, no error of ours
    """Too many bytes are in memory for this body; it should be sent again."""


@dataclass(slots=True)
class BodyMemory:
    """The bytes of all requests that are not answered yet."""

    used: int = 0

    @contextmanager
    def held(self) -> Iterator[HeldMemory]:
        """Count the bytes of one request until it is answered."""
        own = HeldMemory(self)
        try:
            yield own
        finally:
            own.release()


@dataclass(slots=True)
class HeldMemory:
    """The bytes of one request."""

    memory: BodyMemory
    size: int = 0

    def take(self, size: int) -> None:
        """Add a number of bytes to the count.

        Raises:
            NoMemory: The others take too much.
        """
        self.size += size
        self.memory.used += size
        most = ALL_BODIES_BYTES if self.size <= SMALL_BYTES else LARGE_BODIES_BYTES
        if self.memory.used - self.size > most:
            raise NoMemory

    def release(self) -> None:
        """Count the request no more: it is answered."""
        self.memory.used -= self.size
        self.size = 0

"""The body of a request on its way into Redis: it is read portion by portion, in bounded memory.

A gzip body is unpacked, and never more than is asked for. A JSON text is split into its payloads
without building what they hold.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

from segrelay.producer.events.payloads import Payload, load, values_of
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


class BodyTooLarge(Exception):  # noqa: N818 - an answer, no error of ours
    """A body is larger than the receiver takes, or holds more payloads."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def unpack(body: bytes, most: int) -> bytes:
    """Return the content of a gzip body; the body as it came where it is damaged, or is no gzip.

    Raises:
        BodyTooLarge: It unpacks to more than `most` bytes.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            content = file.read(most + 1)
    except (EOFError, OSError, zlib.error):
        return body
    if len(content) > most:
        raise BodyTooLarge(f"larger than {most:,} bytes")
    return content


MOST_PAYLOADS: Final = 10_000
"""The largest number of payloads in a body. Lytics sends at most 1,000."""
SMALL_BYTES: Final = 1024 * 1024
"""The size up to which a text is parsed as a whole, which takes at most 30 MB of memory."""
MOST_VALUES: Final = 500_000
"""The largest number of values in a payload, which takes at most 50 MB as objects of Python."""


@dataclass(slots=True)
class Body:
    """One request's body, and how much of it is stored.

    Args:
        text: JSON: one payload, an array of them, or several of these one after the other.
        most: A body of more payloads is refused before anything of it is stored.

    Attributes:
        stored: The results of the payloads so far.
        taken: The number of payloads that `payloads` has handed out.
        refusal: The reason why nothing of it can be stored, ever.
    """

    text: bytes
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
                values = values_of(load(self.text))
            except PayloadRefused:
                pass  # it may be several values, or an array with one that is broken
            else:
                self._count_to(len(values))
                rest = range(self._position, len(values))
                return (_payload(b"", values[index], index) for index in rest)
        if self._spans is None:
            self._split()
        return self._split_off()

    def _split(self) -> None:
        spans = array("Q")
        try:
            for begin, end in spans_of(self.text):
                spans.extend((begin, end))
                if len(spans) > 2 * self.most:
                    break
        except ValueError:
            spans = array("Q")
        self._spans = spans or array("Q", (0, len(self.text)))
        self._count_to(len(self._spans) // 2)

    def _count_to(self, count: int) -> None:
        if count > self.most:
            raise BodyTooLarge(f"made of more than {self.most:,} payloads")
        self._count = count

    def _split_off(self) -> Iterator[Payload]:
        spans = self._spans or array("Q")
        for index in range(self._position, len(spans) // 2):
            begin, end = spans[2 * index : 2 * index + 2]
            yield _read(self.text[begin:end], index)


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


class HeldMemory:
    """The bytes of one request, which count until the end of the `with` block, or `release`."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def take(self, size: int) -> None:
        """Add a number of bytes to the count.

        Raises:
            NoMemory: The others take too much.
        """
        self.size += size
        self._memory.used += size
        most = ALL_BODIES_BYTES if self.size <= SMALL_BYTES else LARGE_BODIES_BYTES
        if self._memory.used - self.size > most:
            raise NoMemory

    def release(self, *_: object) -> None:
        """Count the request no more: it is answered."""
        self._memory.used -= self.size
        self.size = 0

    __exit__ = release

"""Unpacks gzip bodies: all their members, and never more than is asked for."""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

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
        rest: What follows the last whole member and is no gzip; b"" where all could be read.
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

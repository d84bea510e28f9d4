"""The body of an answer as parts, each small enough for a record of a response stream.

A part of an object or an array has some of its fields, each at its own place: merged, the parts are
the whole body. A text is cut into pieces that follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

_LEAST: Final = 40
"""The least room, in bytes, for a piece of a value; with less room, the value is left out."""
_DEEPEST: Final = 100
"""The most levels of a body that is reported as JSON; a deeper body is reported as text."""
_SYMBOLS: Final = 2
"""The bytes of the brackets around an object, or of the colon and the comma of a field."""


@dataclass(frozen=True, slots=True)
class BodyParts:
    """The body of an answer, split into parts for the records of a response stream.

    Args:
        parts: In their order, each a value of JSON without objects in arrays.
        is_cut: Something of it is not told.
    """

    parts: list[Any]
    is_cut: bool = False


def body_parts(body: bytes, room: int, *, whole: int, is_truncated: bool) -> BodyParts:
    """Split a body into parts of at most `room` bytes; one over `whole` bytes is cut, as a text."""
    text = body[:whole].decode(errors="ignore" if len(body) > whole else "replace")
    is_cut = is_truncated or len(body) > whole
    value: Any = text
    if not is_cut:
        try:
            value = _flat(orjson.loads(body))
        except (orjson.JSONDecodeError, _TooDeepError):
            value = text
    splitting = _Splitting()
    parts = list(splitting.parts(value, room))
    return BodyParts(parts, is_cut or splitting.has_cut)


class _Splitting:
    """Splits one value; `has_cut` says that some of it had to be left out."""

    def __init__(self) -> None:
        self.has_cut = False

    def parts(self, value: Any, room: int) -> Iterator[Any]:
        if _size(value) <= room:
            yield value
        elif room < _LEAST or not isinstance(value, str | dict | list):
            self.has_cut = True
        elif isinstance(value, str):
            yield from self._pieces(value, room)
        else:
            fields = value if isinstance(value, dict) else dict(_by_position(value))
            yield from self._objects(fields, room)

    def _pieces(self, text: str, room: int) -> Iterator[str]:
        """Yield pieces of a text; a character takes up to 6 bytes with its escape."""
        while text:
            piece = text[:room]
            while _size(piece) > room:
                piece = piece[: max(1, len(piece) * (room - _SYMBOLS) // _size(piece) - 1)]
            yield piece
            text = text[len(piece) :]

    def _objects(self, fields: dict[str, Any], room: int) -> Iterator[dict[str, Any]]:
        part: dict[str, Any] = {}
        used = _SYMBOLS
        for name, value in fields.items():
            around = _size(name) + _SYMBOLS
            for each in self.parts(value, room - _SYMBOLS - around):
                size = around + _size(each)
                if part and (name in part or used + size > room):
                    yield part
                    part, used = {}, _SYMBOLS
                part[name] = each
                used += size
        if part:
            yield part


def _size(value: Any) -> int:
    return len(orjson.dumps(value))


def _by_position(values: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((str(at), each) for at, each in enumerate(values))


class _TooDeepError(Exception):
    """A body has more levels than `_DEEPEST`."""


def _flat(value: Any, depth: int = 0) -> Any:
    """Return a value in which each array that holds objects or arrays is an object by positions.

    Raises:
        _TooDeepError: `orjson` could not write it.
    """
    if depth > _DEEPEST:
        raise _TooDeepError
    if isinstance(value, dict):
        return {name: _flat(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        inner = [_flat(each, depth + 1) for each in value]
        if any(isinstance(each, dict | list) for each in inner):
            return dict(_by_position(inner))
        return inner
    return value

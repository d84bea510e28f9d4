"""Integers that a double can't hold: read exactly, carried as text.

Templates calculate with doubles, in which two integers above 2^53 can be one: two people would
become one person. orjson reads integers beyond 64 bits as doubles, which is the same loss earlier.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import orjson

LARGEST_EXACT: Final = 2**53
_DIGITS_OF_64_BITS: Final = 19
_SHAPE: Final = bytes.maketrans(b"123456789,[", b"000000000::")
_IGNORED: Final = b" \t\r\n-"
_LONG_INTEGER: Final = b":" + b"0" * _DIGITS_OF_64_BITS
"""The pattern of a long integer outside of strings in JSON text."""
_FRAMES: Final = 3_000
"""The limit on recursion, in frames: `json` needs one for each of the 1,024 levels of orjson."""


def loads_exactly(text: bytes) -> Any:
    """Parse a JSON text, and read every integer exactly.

    Raises:
        JSONDecodeError: It is not JSON; orjson's.
    """
    value = orjson.loads(text)
    if not may_hold_long_integers(text):
        return value
    try:
        return json.loads(text)
    except RecursionError:
        sys.setrecursionlimit(max(_FRAMES, sys.getrecursionlimit()))
        return json.loads(text)


def may_hold_long_integers(text: bytes) -> bool:
    """Say whether JSON, of one value or several, may hold integers that orjson reads as doubles."""
    return _LONG_INTEGER in text.translate(_SHAPE, _IGNORED)


def dumps_exactly(value: dict[str, Any]) -> tuple[bytes, frozenset[str]]:
    """Return an object's JSON with integers above 2^53 as text, and the fields that hold them.

    Raises:
        TypeError: There is no such JSON, or it is nested deeper than 254 levels; orjson's.
        RecursionError: It is nested deeper still.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER), frozenset()
    except TypeError:  # an integer from 2^53 on, or no JSON at all
        pass
    exact = {field: _as_text(inner) for field, inner in value.items()}
    changed = frozenset(field for field, inner in exact.items() if inner is not value[field])
    return orjson.dumps(exact), changed


def _as_text(value: Any) -> Any:
    """Return a value with its integers above 2^53 as text; the same object if it has none."""
    if isinstance(value, int) and abs(value) > LARGEST_EXACT:
        return str(value)
    if isinstance(value, list):
        elements = [_as_text(element) for element in value]
        same = all(new is old for new, old in zip(elements, value, strict=True))
        return value if same else elements
    if isinstance(value, dict):
        inner = {field: _as_text(element) for field, element in value.items()}
        return value if all(inner[field] is value[field] for field in inner) else inner
    return value

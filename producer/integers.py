"""Integers that a double can't hold: read exactly, carried as text.

Templates calculate with doubles, in which two integers above 2^53 can be one: two people would
become one person. orjson reads integers beyond 64 bits as doubles, which is the same loss earlier.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson

LARGEST_EXACT: Final = 2**53
_BEYOND_64_BITS: Final = re.compile(rb"[:,\[]\s*-?\d{19}")
"""Where there may be one; in a text it is a false alarm that costs only time."""
_ABOVE_2_53: Final = re.compile(rb"[:,\[]-?\d{16}")


def loads_exactly(text: bytes) -> Any:
    """Return the value of a JSON text, with every integer as it stands there.

    Raises:
        JSONDecodeError: It is not JSON; orjson's.
    """
    value = orjson.loads(text)
    if _BEYOND_64_BITS.search(text):
        try:
            return json.loads(text)
        except RecursionError:
            return value
    return value


def dumps_exactly(value: dict[str, Any]) -> tuple[bytes, frozenset[str]]:
    """Return the JSON text of an object whose integers above 2^53 are texts, and their fields.

    Raises:
        TypeError: There is no such JSON, or it is nested deeper than 254 levels; orjson's.
        RecursionError: It is nested deeper still.
    """
    try:
        text = orjson.dumps(value)
    except TypeError:
        text = b""
    if text and not _ABOVE_2_53.search(text):
        return text, frozenset()
    exact = {field: _as_text(inner) for field, inner in value.items()}
    changed = frozenset(field for field, inner in exact.items() if inner is not value[field])
    return orjson.dumps(exact), changed


def _as_text(value: Any) -> Any:
    """Return the value itself where nothing in it has to change."""
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

"""Conversion of values to text and to plain JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from segrelay.jsonnet.compiled.running.limits import ENDLESS, Doubtful, Exhausted
from segrelay.jsonnet.compiled.running.values import (
    EXACT,
    Composite,
    Lazy,
    field_names,
    is_object,
    number,
    take,
)

MAX_DEPTH: Final = 500
"""The largest number of levels of a value; a deeper one contains itself, and would fill a stack."""
_LARGEST: Final = 2**63
"""The limit below which the JSON library writes a whole number."""
_DISPUTED: Final = re.compile("[\x7f-\x9f\ud800-\udfff]")
"""The characters that one engine escapes and another does not."""
_ESCAPED: Final = re.compile(r'[\x00-\x1f"\\]')
_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


def manifest(value: Any, depth: int = 0) -> Any:
    """Return the JSON value in new containers; whoever writes it as text sorts the keys."""
    kind = value.__class__
    if kind is str or value is None or kind is bool:
        return value
    if kind is int:
        return value if -EXACT <= value <= EXACT else manifest(float(value))
    if kind is float:
        return _number(value)
    if kind is Lazy:
        return manifest(value.get(), depth)
    if depth > MAX_DEPTH:
        raise Exhausted(ENDLESS)
    if kind is list:
        return [each if each.__class__ is str else manifest(each, depth + 1) for each in value]
    if kind is dict:
        return {
            name: each if each.__class__ is str else manifest(each, depth + 1)
            for name, each in value.items()
        }
    if kind is Composite:
        return {name: manifest(value[name], depth + 1) for name in value.names()}
    raise Doubtful


def _number(value: float) -> int | float:
    """Return a number that the JSON library writes as Jsonnet would; else Jsonnet is asked."""
    kept = number(value)
    if kept.__class__ is int:
        return kept
    shown = repr(kept)
    if float(kept).is_integer() and 0 < abs(kept) < _LARGEST:
        return int(Decimal(shown))
    if kept == 0 or "e" in shown:
        raise Doubtful
    return kept


def quoted(text: str) -> str:
    """Return a string as JSON has it."""
    if _DISPUTED.search(text):
        raise Doubtful
    if _ESCAPED.search(text):
        text = _ESCAPED.sub(_escape, text)
    return f'"{text}"'


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return _ESCAPES.get(character) or f"\\u{ord(character):04x}"


def text_of(value: Any) -> str:
    """Return a value as `std.toString` prints it."""
    return value if value.__class__ is str else printed(value, ", ", ": ", digits_of)


def digits_of(value: float) -> str:
    """Return a number as go-jsonnet and the reference implementation make text of it."""
    return f"{value:.0f}" if value.is_integer() else f"{value:.17g}"


def shortest_digits(value: float) -> str:
    """Return a number as the manifest functions of go-jsonnet and rjsonnet write it."""
    return format(Decimal(repr(value)), "f").removesuffix(".0")


def printed(
    value: Any, comma: str, colon: str, digits: Callable[[float], str] = shortest_digits
) -> str:
    """Return a value as JSON on one line; `digits` writes a number that is no `int`."""
    kind = value.__class__
    if kind is str:
        return quoted(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is float:
        return digits(value)
    if kind is list:
        parts = [printed(take(each), comma, colon, digits) for each in value]
        return _brackets("[", "]", comma, parts)
    if is_object(value):
        parts = [
            quoted(name) + colon + printed(take(value[name]), comma, colon, digits)
            for name in field_names(value)
        ]
        return _brackets("{", "}", comma, parts)
    raise Doubtful


def _brackets(opening: str, closing: str, comma: str, parts: list[str]) -> str:
    if not parts:
        return f"{opening} {closing}" if comma == ", " else opening + closing
    return opening + comma.join(parts) + closing

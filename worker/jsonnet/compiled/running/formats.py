"""`std.format` and `%` with a string, digit for digit as the standard library of Jsonnet does it.

go-jsonnet and the reference implementation have it written in Jsonnet, in doubles. The arithmetic
here is the same, step by step, so that a rounded half comes out the same, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from worker.jsonnet.compiled.running.limits import TOO_LARGE, Doubtful, Exhausted, spend_text
from worker.jsonnet.compiled.running.printing import text_of
from worker.jsonnet.compiled.running.values import (
    EXACT,
    MISSING,
    field_names,
    is_object,
    numeric,
    string,
    take,
)

_CODE: Final = re.compile(
    r"%(?:\((?P<name>[^)]*)\))?(?P<flags>[-#0 +]*)(?P<width>\d*)"
    r"(?P<point>\.(?P<precision>\d*))?[hlL]?(?P<kind>[diufFcs%])"
)
"""The codes of whole and decimal numbers, characters and texts; Jsonnet knows the others."""
_HUGE: Final = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(?:\d{8}|[\d*]*\.\d{8})")
_DIGITS: Final = 6
"""The precision of a fraction where the code names none."""
_POWERS: Final = tuple(10.0**digits for digits in range(23))
"""Powers of ten that a double holds exactly; beyond them engines differ."""
_KEPT: Final = 1_000
"""Formats that are kept; each is a constant of some template, or comes from a profile."""
_MAX_KEPT_CHARACTERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Code:
    """A conversion, such as `%-5.1f`.

    Args:
        name: Of the field that it prints; None where values come in order.
        flags: Of `-#0 +`.
        width: The fewest characters.
        precision: None where none is written.
        kind: The letter, in lower case.
    """

    name: str | None
    flags: str
    width: int
    precision: int | None
    kind: str


def formatted(template: str, values: Any) -> str:
    """Return the template with the values in it: an array, an object, or a single value."""
    pieces = _parsed(template) if len(template) <= _MAX_KEPT_CHARACTERS else _parse(template)
    given = iter(values if values.__class__ is list else (values,))
    parts = [_one(piece, given, values) if isinstance(piece, _Code) else piece for piece in pieces]
    if next(given, MISSING) is not MISSING and not is_object(values):
        raise Doubtful
    return "".join(parts)


def _parse(template: str) -> tuple[str | _Code, ...]:
    pieces: list[str | _Code] = []
    position = 0
    while (at := template.find("%", position)) >= 0:
        if _HUGE.match(template, at):
            # Also where it is no valid code: an engine would die of it.
            raise Exhausted(TOO_LARGE)
        code = _CODE.match(template, at)
        if code is None or (code["kind"] == "%" and code.group() != "%%"):
            raise Doubtful
        pieces += [template[position:at], _code_of(code)]
        position = code.end()
    return (*pieces, template[position:])


_parsed = lru_cache(maxsize=_KEPT)(_parse)


def _code_of(match: re.Match[str]) -> str | _Code:
    if match["kind"] == "%":
        return "%"
    precision = int(match["precision"] or 0) if match["point"] else None
    width = int(match["width"] or 0)
    return _Code(match["name"], match["flags"], width, precision, match["kind"].lower())


def _one(code: _Code, given: Iterator[Any], values: Any) -> str:
    spend_text(code.width)
    text = _text(code, _value(code, given, values))
    return text if len(text) >= code.width else _padded(text, code.flags, code.width)


def _value(code: _Code, given: Iterator[Any], values: Any) -> Any:
    if is_object(values):
        if code.name not in field_names(values, hidden=True):
            raise Doubtful
        return take(values[code.name])
    return take(next(given))


def _text(code: _Code, value: Any) -> str:
    if code.kind == "s":
        return text_of(value)
    if code.kind == "c":
        return _character(value)
    filled = code.width if "0" in code.flags and "-" not in code.flags else 0
    if code.kind in "diu":
        return _whole_number(numeric(value), code.flags, filled, code.precision or 0)
    digits = _DIGITS if code.precision is None else code.precision
    return _decimal(float(numeric(value)), code.flags, filled, digits)


def _character(value: Any) -> str:
    if value.__class__ is int:
        return chr(value)
    if len(string(value)) != 1:
        raise Doubtful
    return value  # type: ignore[no-any-return]


def _whole_number(value: float, flags: str, filled: int, digits: int) -> str:
    """Return a number for `%d`, without its fraction."""
    spend_text(digits)
    shown = _digits_of(math.floor(abs(value)))
    return _filled_up(_sign(flags, negative=value <= -1), shown, filled, digits)


def _sign(flags: str, *, negative: bool) -> str:
    return "-" if negative else "+" if "+" in flags else " " if " " in flags else ""


def _filled_up(front: str, shown: str, filled: int, digits: int = 0) -> str:
    return front + shown.rjust(max(filled - len(front), digits), "0")


def _digits_of(magnitude: int) -> str:
    if magnitude <= EXACT:
        return str(magnitude)
    digits: list[str] = []
    left = float(magnitude)
    while left:
        digits.append(str(int(math.fmod(left, 10))))
        left = float(math.floor(left / 10))
    return "".join(reversed(digits))


def _decimal(number: float, flags: str, filled: int, digits: int) -> str:
    if digits >= len(_POWERS):
        raise Doubtful
    denominator = _POWERS[digits]
    numerator = abs(number) * denominator + 0.5
    before = math.floor(numerator / denominator)
    behind = int(math.fmod(math.floor(numerator), denominator))
    point = bool(digits) or "#" in flags
    shown = _filled_up(
        _sign(flags, negative=number < 0), _digits_of(before), filled - digits - point
    )
    fraction = _digits_of(behind).rjust(digits, "0") if digits else ""
    return f"{shown}{'.' * point}{fraction}"


def _padded(text: str, flags: str, width: int) -> str:
    if not text.isascii():
        raise Doubtful  # rjsonnet counts bytes
    return text.ljust(width) if "-" in flags else text.rjust(width)

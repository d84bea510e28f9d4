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

from segrelay.jsonnet.compiled.running.limits import TOO_LARGE, Doubtful, Exhausted, spend_text
from segrelay.jsonnet.compiled.running.printing import text_of
from segrelay.jsonnet.compiled.running.values import (
    EXACT,
    MISSING,
    field_names,
    is_object,
    numeric,
    string,
    take,
    whole,
)

_CODE: Final = re.compile(
    r"%(?:\((?P<name>[^)]*)\))?(?P<flags>[-#0 +]*)(?P<width>\*|\d*)"
    r"(?P<point>\.(?P<precision>\*|\d*))?[hlL]?(?P<kind>[diuoxXeEfFgGcs%])"
)
_HUGE: Final = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(?:\d{8}|[\d*]*\.\d{8})")
_GIVEN: Final = -1
"""Stands for a width or precision that is written `*`: the next value says it."""
_DIGITS: Final = 6
"""The number of a fraction's digits if a format's code names none."""
_POWERS: Final = tuple(10.0**digits for digits in range(23))
"""Powers of ten that a double holds exactly; beyond them engines differ."""
_KEPT: Final = 1_000
"""The number of parsed formats that are kept: formats from profiles must not fill the memory."""
_MAX_KEPT_CHARACTERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Code:
    """A conversion, such as `%-5.1f`.

    Args:
        name: Of the field that it prints; None where values come in order.
        flags: Of `-#0 +`.
        width: At least so many characters, or `_GIVEN`.
        precision: None where none is written; or `_GIVEN`.
        kind: The letter, in lower case.
        capitals: The letter is a capital.
    """

    name: str | None
    flags: str
    width: int
    precision: int | None
    kind: str
    capitals: bool


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
    precision = _amount(match["precision"]) if match["point"] else None
    kind = match["kind"]
    width = _amount(match["width"])
    return _Code(match["name"], match["flags"], width, precision, kind.lower(), kind.isupper())


def _amount(written: str) -> int:
    return _GIVEN if written == "*" else int(written or 0)


def _one(code: _Code, given: Iterator[Any], values: Any) -> str:
    width, precision = code.width, code.precision
    if width == _GIVEN:
        width = _next_amount(given, values)
    if precision == _GIVEN:
        precision = _next_amount(given, values)
    spend_text(width)
    text = _text(code, _value(code, given, values), width, precision)
    return text if len(text) >= width else _padded(text, code.flags, width)


def _next_amount(given: Iterator[Any], values: Any) -> int:
    amount = -1 if is_object(values) else whole(take(next(given)))
    if amount < 0:
        raise Doubtful
    return amount


def _value(code: _Code, given: Iterator[Any], values: Any) -> Any:
    if is_object(values):
        if code.name not in field_names(values, hidden=True):
            raise Doubtful
        return take(values[code.name])
    return take(next(given))


def _text(code: _Code, value: Any, width: int, precision: int | None) -> str:
    kind, flags = code.kind, code.flags
    if kind == "s":
        return text_of(value)
    if kind == "c":
        return _character(value)
    filled = width if "0" in flags and "-" not in flags else 0
    if kind in "diuox":
        return _whole_number(code, numeric(value), filled, precision or 0)
    if kind != "f":
        raise Doubtful  # `%e` and `%g` take a logarithm, whose last digit depends on the engine
    digits = _DIGITS if precision is None else precision
    return _decimal(float(numeric(value)), flags, filled, digits)


def _character(value: Any) -> str:
    if value.__class__ is int:
        return chr(value)
    if len(string(value)) != 1:
        raise Doubtful
    return value  # type: ignore[no-any-return]


def _whole_number(code: _Code, value: float, filled: int, digits: int) -> str:
    """Return a number without its fraction; `%x` rounds down, and the others towards zero."""
    spend_text(digits)
    if code.kind == "x":
        rounded = math.floor(value)
        prefix = ("0X" if code.capitals else "0x") if "#" in code.flags else ""
        shown = _in_base(abs(rounded), 16)
        shown = shown.upper() if code.capitals else shown
        front = _sign(code.flags, negative=rounded < 0) + prefix
        return _filled_up(front, shown, filled, digits)
    magnitude = math.floor(abs(value))
    shown = _in_base(magnitude, 8 if code.kind == "o" else 10)
    if code.kind == "o" and "#" in code.flags and magnitude:
        shown = "0" + shown
    return _filled_up(_sign(code.flags, negative=value <= -1), shown, filled, digits)


def _sign(flags: str, *, negative: bool) -> str:
    return "-" if negative else "+" if "+" in flags else " " if " " in flags else ""


def _filled_up(front: str, shown: str, filled: int, digits: int = 0) -> str:
    return front + shown.rjust(max(filled - len(front), digits), "0")


def _in_base(magnitude: int, base: int) -> str:
    if magnitude <= EXACT:
        return format(magnitude, {8: "o", 10: "d", 16: "x"}[base])
    digits: list[str] = []
    left = float(magnitude)
    while left:
        digits.append("0123456789abcdef"[int(math.fmod(left, base))])
        left = float(math.floor(left / base))
    return "".join(reversed(digits))


def _decimal(number: float, flags: str, filled: int, digits: int) -> str:
    if not 0 <= digits < len(_POWERS):
        raise Doubtful
    denominator = _POWERS[digits]
    numerator = abs(number) * denominator + 0.5
    before = math.floor(numerator / denominator)
    behind = int(math.fmod(math.floor(numerator), denominator))
    point = digits or "#" in flags
    filled -= digits + bool(point)
    shown = _filled_up(_sign(flags, negative=number < 0), _in_base(before, 10), filled)
    fraction = _in_base(behind, 10).rjust(digits, "0") if digits else ""
    return f"{shown}.{fraction}" if point else shown


def _padded(text: str, flags: str, width: int) -> str:
    if not text.isascii():
        raise Doubtful  # rjsonnet counts bytes
    return text.ljust(width) if "-" in flags else text.rjust(width)

"""`std.format` and `%` with a string, digit for digit as the standard library of Jsonnet does it.

go-jsonnet and the reference implementation have it written in Jsonnet, in doubles. The arithmetic
here is the same, step by step, so that a rounded half comes out the same, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from segrelay.jsonnet.compiled.running.limits import TOO_LARGE, Doubtful, Exhausted, spend_text
from segrelay.jsonnet.compiled.running.printing import text_of
from segrelay.jsonnet.compiled.running.values import (
    EXACT,
    MISSING,
    field_names,
    is_object,
    numeric,
    take,
)

_CODE: Final = re.compile(
    r"%(?:\((?P<name>[^)]*)\))?(?P<flags>[-#0 +]*)(?P<width>\d*)"
    r"(?P<point>\.(?P<precision>\d*))?[hlL]?(?P<kind>[diufFs%])"
)
_HUGE: Final = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(?:\d{8}|[\d*]*\.\d{8})")
_DIGITS: Final = 6
"""The number of a fraction's digits if a format's code names none."""
_POWERS: Final = tuple(10.0**digits for digits in range(23))
"""Powers of ten that a double holds exactly; beyond them engines differ."""
_KEPT: Final = 1_000
"""The number of parsed formats that are kept: formats from profiles must not fill the memory."""
_MAX_KEPT_CHARACTERS: Final = 1_000


class _Code(NamedTuple):
    """A conversion, such as `%-5.1f`; others than to `%d`, `%f` and `%s` are left to Jsonnet.

    Attributes:
        name: The name of the field that it prints; None where values come in order.
        flags: The flags, some of `-#0 +`.
        width: The least number of characters.
        precision: The number of digits; None where none is written.
        kind: The letter of the conversion, in lower case.
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
    if len(text) >= code.width:
        return text
    if not text.isascii():
        raise Doubtful  # rjsonnet counts bytes
    return text.ljust(code.width) if "-" in code.flags else text.rjust(code.width)


def _value(code: _Code, given: Iterator[Any], values: Any) -> Any:
    if is_object(values):
        if code.name not in field_names(values, hidden=True):
            raise Doubtful
        return take(values[code.name])
    return take(next(given))


def _text(code: _Code, value: Any) -> str:
    if code.kind == "s":
        return text_of(value)
    flags, precision, number = code.flags, code.precision, float(numeric(value))
    filled = code.width if "0" in flags and "-" not in flags else 0
    if code.kind == "f":
        return _decimal(number, flags, filled, _DIGITS if precision is None else precision)
    spend_text(precision or 0)
    shown = _digits(math.floor(abs(number)))
    return _filled_up(_sign(flags, negative=number <= -1), shown, filled, precision or 0)


def _sign(flags: str, *, negative: bool) -> str:
    return "-" if negative else "+" if "+" in flags else " " if " " in flags else ""


def _filled_up(front: str, shown: str, filled: int, digits: int = 0) -> str:
    return front + shown.rjust(max(filled - len(front), digits), "0")


def _digits(magnitude: int) -> str:
    if magnitude <= EXACT:
        return str(magnitude)
    digits: list[str] = []
    left = float(magnitude)
    while left:
        digits.append(str(int(math.fmod(left, 10))))
        left = float(math.floor(left / 10))
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
    shown = _filled_up(_sign(flags, negative=number < 0), _digits(before), filled)
    fraction = _digits(behind).rjust(digits, "0") if digits else ""
    return f"{shown}.{fraction}" if point else shown

"""`std.format` and `%` with a string: `%s %d %i %u %c %%`, with flags, width and names.

Fractions are left to Jsonnet: its engines round and print them differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from worker.jsonnet.compiled.running.limits import (
    TOO_LARGE,
    Doubtful,
    Exhausted,
    spend_text,
)
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
    r"%(?:\((?P<name>[^)]*)\))?(?P<flags>[-0 +]*)(?P<width>\d*)(?P<kind>[sdiuc%])"
)
_HUGE: Final = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(?:\d{8}|[\d*]*\.\d{8})")


def formatted(template: str, values: Any) -> str:
    """Return the template with the values in it: an array, an object, or a single value."""
    parts: list[str] = []
    given = iter(values if values.__class__ is list else [values])
    position = 0
    while (at := template.find("%", position)) >= 0:
        if _HUGE.match(template, at):
            raise Exhausted(
                TOO_LARGE
            )  # also where it is no code of ours: an engine would die of it
        code = _CODE.match(template, at)
        if code is None:
            raise Doubtful
        parts += [template[position:at], _one(code, given, values)]
        position = code.end()
    if next(given, MISSING) is not MISSING and not is_object(values):
        raise Doubtful
    return "".join([*parts, template[position:]])


def _one(code: re.Match[str], given: Iterator[Any], values: Any) -> str:
    width = int(code["width"] or 0)
    spend_text(width)
    if code["kind"] == "%":
        if code.group() != "%%":
            raise Doubtful
        return "%"
    return _padded(_text(code, _value(code, given, values)), code["flags"], width)


def _value(code: re.Match[str], given: Iterator[Any], values: Any) -> Any:
    if code["name"] is not None:
        if code["name"] not in field_names(values):
            raise Doubtful
        return take(values[code["name"]])
    if is_object(values):
        raise Doubtful
    return take(next(given))


def _text(code: re.Match[str], value: Any) -> str:
    flags, kind = code["flags"], code["kind"]
    if kind == "s":
        if flags.strip("-"):
            raise Doubtful
        return text_of(value)
    if kind == "c":
        if value.__class__ is int:
            return chr(value)
        if flags or len(string(value)) != 1:
            raise Doubtful
        return value  # type: ignore[no-any-return]
    return _digits(numeric(value), flags, int(code["width"] or 0))


def _digits(value: float, flags: str, width: int) -> str:
    if value.__class__ is float or abs(value) > EXACT:
        raise Doubtful
    sign = "-" if value < 0 else "+" if "+" in flags else " " if " " in flags else ""
    digits = str(abs(value))
    if "0" in flags and "-" not in flags:
        digits = digits.rjust(width - len(sign), "0")
    return sign + digits


def _padded(text: str, flags: str, width: int) -> str:
    if len(text) < width and not text.isascii():
        raise Doubtful  # rjsonnet counts bytes
    return text.ljust(width) if "-" in flags else text.rjust(width)

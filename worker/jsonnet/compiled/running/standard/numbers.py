"""The functions of `std` for numbers; powers, logarithms and sines are left to Jsonnet."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from worker.jsonnet.compiled.running.limits import Doubtful
from worker.jsonnet.compiled.running.natives import native, natives
from worker.jsonnet.compiled.running.operators import negated
from worker.jsonnet.compiled.running.values import number, numeric, string, whole


def _rounded(x: Any, how: Callable[[float], int]) -> int | float:
    """Round a number; -0, and a number that is rounded to it, keep their sign."""
    result = how(numeric(x))
    return number(math.copysign(0.0, x)) if result == 0 else number(result)


@native("n", gives="number", name="abs")
def absolute(n: Any) -> int | float:
    # The standard library negates what is not above zero, and so a zero.
    return numeric(n) if numeric(n) > 0 else negated(n)


@native("a b", gives="number", name="max")
def larger(a: Any, b: Any) -> int | float:
    if numeric(a) == numeric(b) == 0:
        raise Doubtful
    return max(numeric(a), numeric(b))


@native("a b", gives="number", name="min")
def smaller(a: Any, b: Any) -> int | float:
    if numeric(a) == numeric(b) == 0:
        raise Doubtful
    return min(numeric(a), numeric(b))


def _half_away_from_zero(x: float) -> int:
    whole_part = math.trunc(x)
    return whole_part + (1 if x > 0 else -1) if abs(x - whole_part) >= 0.5 else whole_part  # noqa: PLR2004


@native("str", gives="number", name="parseInt")
def parse_int(text: Any) -> int | float:
    is_negative = string(text).startswith("-") and text.strip("-0")
    digits = text[1:] if is_negative else text
    if not digits or not set(digits) <= set("0123456789"):
        raise Doubtful
    return number(-int(digits) if is_negative else int(digits))


natives(
    "x",
    {
        "floor": lambda x: _rounded(x, math.floor),
        "ceil": lambda x: _rounded(x, math.ceil),
        # Half a number goes away from zero; the reference implementation rounds it up.
        "round": lambda x: _rounded(x, _half_away_from_zero),
    },
    gives="number",
)
natives(
    "x",
    {
        "isEven": lambda x: whole(x) % 2 == 0,
        "isOdd": lambda x: whole(x) % 2 == 1,
        "isInteger": lambda x: float(numeric(x)).is_integer(),
    },
    gives="bool",
)

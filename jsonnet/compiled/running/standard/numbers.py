"""The functions of `std` for numbers; logarithms and sines are left to Jsonnet if in doubt."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from segrelay.jsonnet.compiled.running.formats import natural_logarithm
from segrelay.jsonnet.compiled.running.limits import Doubtful
from segrelay.jsonnet.compiled.running.natives import native, natives
from segrelay.jsonnet.compiled.running.operators import modulo, negated, remainder
from segrelay.jsonnet.compiled.running.values import number, numeric, string, whole


def _rounded(x: Any, how: Callable[[float], int]) -> int | float:
    """Round a number; -0, and a number that is rounded to it, keep their sign."""
    result = how(numeric(x))
    return number(math.copysign(0.0, x)) if result == 0 else number(result)


@native("n", gives="number", name="abs")
def absolute(n: Any) -> int | float:
    # The standard library negates what is not above zero, and so a zero.
    return numeric(n) if numeric(n) > 0 else negated(n)


@native("n", gives="number")
def sign(n: Any) -> int:
    return int(numeric(n) > 0) - int(n < 0)


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


@native("x minVal maxVal", gives="number")
def clamp(x: Any, low: Any, high: Any) -> int | float:
    if numeric(low) > numeric(high):
        raise Doubtful
    return low if numeric(x) < low else min(x, high)  # type: ignore[no-any-return]


def _half_away_from_zero(x: float) -> int:
    whole_part = math.trunc(x)
    return whole_part + (1 if x > 0 else -1) if abs(x - whole_part) >= 0.5 else whole_part  # noqa: PLR2004


@native("x n", gives="number", name="pow")
def power(x: Any, n: Any) -> int | float:
    """Raise a number to a power; the engines agree only on whole results up to 2^53."""
    result = math.pow(whole(x), whole(n))
    if not result.is_integer() or number(result).__class__ is float:
        raise Doubtful
    return number(result)


@native("x", gives="number", name="log")
def logarithm(x: Any) -> int | float:
    if numeric(x) <= 0:
        raise Doubtful
    return number(natural_logarithm(x))


@native("x", gives="number", name="exp")
def exponential(x: Any) -> int | float:
    """Return `e` to the power of 0, which is 1; engines differ in the digits of other powers."""
    if numeric(x) != 0:
        raise Doubtful
    return 1


@native("a b")
def mod(a: Any, b: Any) -> Any:
    return remainder(a, b)


@native("a b", gives="number", name="modulo")
def modulo_of(a: Any, b: Any) -> int | float:
    return modulo(a, b)  # type: ignore[no-any-return]


def _digits(text: Any, base: int, allowed: str) -> int | float:
    if not string(text) or not set(text) <= set(allowed):
        raise Doubtful
    return number(int(text, base))


@native("str", gives="number", name="parseInt")
def parse_int(text: Any) -> int | float:
    if string(text).startswith("-") and text.strip("-0"):
        return -_digits(text[1:], 10, "0123456789")
    return _digits(text, 10, "0123456789")


natives(
    "x",
    {
        "floor": lambda x: _rounded(x, math.floor),
        "ceil": lambda x: _rounded(x, math.ceil),
        # Half a number goes away from zero; the reference implementation rounds it up.
        "round": lambda x: _rounded(x, _half_away_from_zero),
        "sqrt": lambda x: number(math.sqrt(numeric(x))),
    },
    gives="number",
)
natives(
    "x",
    {
        "isEven": lambda x: whole(x) % 2 == 0,
        "isOdd": lambda x: whole(x) % 2 == 1,
        "isInteger": lambda x: float(numeric(x)).is_integer(),
        "isDecimal": lambda x: not float(numeric(x)).is_integer(),
    },
    gives="bool",
)
natives(
    "str",
    {
        "parseOctal": lambda text: _digits(text, 8, "01234567"),
        "parseHex": lambda text: _digits(text, 16, "0123456789abcdefABCDEF"),
    },
    gives="number",
)

"""The functions of `std` for strings and numbers.

Strings count by code point; only ASCII has upper and lower case.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import string as alphabet
from collections.abc import Callable
from typing import Any, Final

import orjson

from segrelay.jsonnet.compiled.running.formats import formatted
from segrelay.jsonnet.compiled.running.limits import Doubtful, spend, spend_text
from segrelay.jsonnet.compiled.running.natives import native, natives
from segrelay.jsonnet.compiled.running.operators import negated
from segrelay.jsonnet.compiled.running.printing import printed, quoted, text_of
from segrelay.jsonnet.compiled.running.values import (
    array,
    items,
    number,
    numeric,
    string,
    take,
    whole,
)

_UPPER: Final = str.maketrans(alphabet.ascii_lowercase, alphabet.ascii_uppercase)
_LOWER: Final = str.maketrans(alphabet.ascii_uppercase, alphabet.ascii_lowercase)
_WHOLE: Final = re.compile(r"[0-9]+|-(?=0*[1-9])[0-9]+")
_BLANK: Final = (
    "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""The characters that go-jsonnet trims."""


@native("pat str", gives="array", name="findSubstr")
def find_substring(pattern: Any, text: Any) -> list[int]:
    """Return where a pattern occurs, also overlapping; ASCII only: other offsets are disputed."""
    if not string(pattern) or not string(text).isascii():
        raise Doubtful
    spend(len(text))
    return [at for at in range(len(text)) if text.startswith(pattern, at)]


natives("str", {"encodeUTF8": lambda text: list(string(text).encode())}, gives="array")


@native("n", gives="string")
def char(n: Any) -> str:
    return chr(whole(n))


@native("str from len", gives="string")
def substr(text: Any, start: Any, count: Any) -> str:
    if whole(start) < 0 or whole(count) < 0:
        raise Doubtful
    return string(text)[start : start + count]


@native("str c", gives="array")
def split(text: Any, by: Any) -> list[str]:
    if not string(by):
        raise Doubtful
    return string(text).split(by)


@native("str from to", gives="string", name="strReplace")
def replaced(text: Any, old: Any, new: Any) -> str:
    if not string(old):
        raise Doubtful
    spend_text(len(string(text)) + text.count(old) * len(string(new)))
    return text.replace(old, new)  # type: ignore[no-any-return]


@native("str", gives="bool", name="isEmpty")
def is_empty(text: Any) -> bool:
    return not string(text)


@native("str", gives="array", name="stringChars")
def string_chars(text: Any) -> list[str]:
    spend(len(string(text)))
    return list(text)


@native("str vals", gives="string", name="format")
def format_of(template: Any, values: Any) -> str:
    return formatted(string(template), values)


@native("sep arr", gives="any", looks_at_all=True)
def join(separator: Any, parts: Any) -> Any:
    """Join strings by a string, or arrays by an array; null is left out."""
    given = [value for value in items(parts) if value is not None]
    if separator.__class__ is str:
        spend_text(sum(len(string(value)) + len(separator) for value in given))
        return separator.join(given)
    joined: list[Any] = []
    between = array(separator)
    for at, value in enumerate(given):
        joined += [*(between if at else []), *array(value)]
        spend(len(array(value)) + len(between))
    return joined


@native("what count", gives="any")
def repeat(what: Any, count: Any) -> Any:
    if whole(count) < 0:
        raise Doubtful
    if what.__class__ is str:
        spend_text(len(what) * count)
    else:
        spend(len(array(what)) * count)
    return what * count


@native("str", name="parseJson")
def parse_json(text: Any) -> Any:
    return take(orjson.loads(string(text)))


def _separated(text: str) -> str:
    """Escape the line separators that JSON allows and JavaScript does not, as go-jsonnet does."""
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@native("input", gives="string", name="base64")
def to_base64(text: Any) -> str:
    if not string(text).isascii():
        raise Doubtful
    return base64.b64encode(text.encode()).decode()


natives(
    "a b",
    {
        "startsWith": lambda a, b: string(a).startswith(string(b)),
        "endsWith": lambda a, b: string(a).endswith(string(b)),
    },
    gives="bool",
)
natives(
    "str chars",
    {
        "stripChars": lambda text, chars: string(text).strip(string(chars)),
        "lstripChars": lambda text, chars: string(text).lstrip(string(chars)),
        "rstripChars": lambda text, chars: string(text).rstrip(string(chars)),
    },
    gives="string",
)
natives(
    "str",
    {
        "trim": lambda text: string(text).strip(_BLANK),
        "asciiUpper": lambda text: string(text).translate(_UPPER),
        "asciiLower": lambda text: string(text).translate(_LOWER),
        "escapeStringJson": lambda text: quoted(text_of(text)),
        "md5": lambda text: hashlib.md5(string(text).encode(), usedforsecurity=False).hexdigest(),
        "sha1": lambda text: hashlib.sha1(string(text).encode(), usedforsecurity=False).hexdigest(),
        "sha256": lambda text: hashlib.sha256(string(text).encode()).hexdigest(),
    },
    gives="string",
)
natives(
    "value",
    {"manifestJsonMinified": lambda value: _separated(printed(value, ",", ":"))},
    gives="string",
)


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
    if not _WHOLE.fullmatch(string(text)):
        raise Doubtful
    return number(int(text))


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

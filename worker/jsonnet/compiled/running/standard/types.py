"""The functions of `std` for the types of values and their equality."""

from __future__ import annotations

from typing import Any

from worker.jsonnet.compiled.running.limits import Doubtful
from worker.jsonnet.compiled.running.natives import native, natives
from worker.jsonnet.compiled.running.operators import equal
from worker.jsonnet.compiled.running.printing import text_of
from worker.jsonnet.compiled.running.values import (
    Func,
    boolean,
    field_names,
    is_object,
    kind_of,
    string,
    take,
)


@native("x", gives="string", name="type")
def type_of(x: Any) -> str:
    return kind_of(x)


@native("x", gives="number")
def length(x: Any) -> int:
    if x.__class__ is str or x.__class__ is list:
        return len(x)
    if x.__class__ is Func:
        return len(x.names)
    return len(field_names(x))


@native("a", gives="string", name="toString")
def to_string(a: Any) -> str:
    return text_of(a)


@native("str rest", lazy="rest")
def trace(str_: Any, rest: Any) -> Any:
    """Return `rest`; the text is printed nowhere, because it may name people."""
    string(str_)
    return take(rest)


@native("a b", gives="bool")
def equals(a: Any, b: Any) -> bool:
    return equal(a, b)


@native("a b", gives="bool", name="primitiveEquals")
def primitive_equals(a: Any, b: Any) -> bool:
    if kind_of(a) in ("array", "object", "function"):
        raise Doubtful
    return equal(a, b)


natives(
    "v",
    {
        "isString": lambda v: v.__class__ is str,
        "isNumber": lambda v: v.__class__ is int or v.__class__ is float,
        "isBoolean": lambda v: v.__class__ is bool,
        "isObject": is_object,
        "isArray": lambda v: v.__class__ is list,
        "isFunction": lambda v: v.__class__ is Func,
        "isNull": lambda v: v is None,
    },
    gives="bool",
)
natives(
    "x y",
    {
        "xor": lambda x, y: boolean(x) is not boolean(y),
        "xnor": lambda x, y: boolean(x) is boolean(y),
    },
    gives="bool",
)

"""The types of values, and their equality."""

from __future__ import annotations

from typing import Any

from worker.jsonnet.compiled.running.limits import Doubtful
from worker.jsonnet.compiled.running.natives import native
from worker.jsonnet.compiled.running.operators import equal
from worker.jsonnet.compiled.running.printing import text_of
from worker.jsonnet.compiled.running.values import Func, boolean, field_names, is_object, kind_of


@native("x", gives="string", name="type")
def type_of(x: Any) -> str:
    return kind_of(x)


@native("v", gives="bool", name="isString")
def is_string(v: Any) -> bool:
    return v.__class__ is str


@native("v", gives="bool", name="isNumber")
def is_number(v: Any) -> bool:
    return v.__class__ is int or v.__class__ is float


@native("v", gives="bool", name="isBoolean")
def is_boolean(v: Any) -> bool:
    return v.__class__ is bool


@native("v", gives="bool", name="isObject")
def is_an_object(v: Any) -> bool:
    return is_object(v)


@native("v", gives="bool", name="isArray")
def is_array(v: Any) -> bool:
    return v.__class__ is list


@native("v", gives="bool", name="isFunction")
def is_function(v: Any) -> bool:
    return v.__class__ is Func


@native("v", gives="bool", name="isNull")
def is_null(v: Any) -> bool:
    return v is None


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


@native("a b", gives="bool")
def equals(a: Any, b: Any) -> bool:
    return equal(a, b)


@native("a b", gives="bool", name="primitiveEquals")
def primitive_equals(a: Any, b: Any) -> bool:
    if kind_of(a) in ("array", "object", "function"):
        raise Doubtful
    return equal(a, b)


@native("x y", gives="bool")
def xor(x: Any, y: Any) -> bool:
    return boolean(x) is not boolean(y)


@native("x y", gives="bool")
def xnor(x: Any, y: Any) -> bool:
    return boolean(x) is boolean(y)

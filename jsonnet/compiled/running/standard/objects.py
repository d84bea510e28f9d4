"""The functions of `std` for objects.

The functions of `std` for the types of values and their equality.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from segrelay.jsonnet.compiled.running.limits import Doubtful, tick
from segrelay.jsonnet.compiled.running.natives import native, natives
from segrelay.jsonnet.compiled.running.operators import equal
from segrelay.jsonnet.compiled.running.printing import text_of
from segrelay.jsonnet.compiled.running.values import (
    Func,
    Lazy,
    boolean,
    call,
    field_names,
    has_field,
    is_object,
    items,
    kind_of,
    string,
    take,
)


def _field(target: Any, name: str) -> Any:
    """Return a field unevaluated: as a `dict` holds it, or a Lazy for an object with `self`."""
    return target[name] if target.__class__ is dict else Lazy(partial(target.__getitem__, name))


@native("o", gives="array", name="objectFields")
def object_fields(o: Any) -> list[str]:
    return field_names(o)


@native("o f default? inc_hidden?", lazy="default", name="get")
def get_field(o: Any, f: Any, default: Any = None, inc_hidden: Any = True) -> Any:  # noqa: FBT002
    if string(f) in field_names(o, hidden=boolean(inc_hidden)):
        return take(o[f])
    return take(default)


@native("func obj", gives="object", name="mapWithKey", calls=True)
def map_with_key(func: Any, obj: Any) -> dict[str, Any]:
    if func.__class__ is not Func:
        raise Doubtful
    return {name: Lazy(partial(call, func, (name, _field(obj, name)))) for name in field_names(obj)}


@native("obj key", gives="object", name="objectRemoveKey")
def object_remove_key(obj: Any, key: Any) -> dict[str, Any]:
    """Return an object without a field; one with hidden fields is left to Jsonnet."""
    if obj.__class__ is not dict:
        raise Doubtful
    gone = string(key)
    return {name: value for name, value in obj.items() if name != gone}


def _is_worth(value: Any) -> bool:
    if value.__class__ is list:
        return bool(value)
    return value is not None and (not is_object(value) or bool(field_names(value)))


@native("a")
def prune(a: Any) -> Any:
    tick()
    if a.__class__ is list:
        return [kept for value in items(a) if _is_worth(kept := prune(value))]
    if is_object(a):
        pruned = ((name, prune(take(a[name]))) for name in field_names(a))
        return {name: kept for name, kept in pruned if _is_worth(kept)}
    return a


@native("target patch", lazy="target", name="mergePatch")
def merge_patch(target: Any, patch: Any) -> Any:
    tick()
    if not is_object(patch):
        return patch
    target = take(target)
    base = target if is_object(target) else {}
    merged = {name: _field(base, name) for name in field_names(base)}
    for name in field_names(patch):
        value = take(patch[name])
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


natives(
    "o f",
    {
        "objectHas": lambda o, f: string(f) in field_names(o),
        "objectHasAll": lambda o, f: has_field(f, o),
    },
    gives="bool",
)
natives(
    "o",
    {
        "objectFieldsAll": lambda o: field_names(o, hidden=True),
        "objectValues": lambda o: [_field(o, name) for name in field_names(o)],
        "objectKeysValues": lambda o: [
            {"key": name, "value": _field(o, name)} for name in field_names(o)
        ],
    },
    gives="array",
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

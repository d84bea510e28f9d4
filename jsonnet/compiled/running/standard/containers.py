"""The functions of `std` for arrays, objects, types and equality.

Results of a given function are computed lazily. Sort keys other than all numbers or strings are
left to an engine.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from segrelay.jsonnet.compiled.running.limits import A_TURN, Doubtful, spend, tick
from segrelay.jsonnet.compiled.running.natives import native, natives
from segrelay.jsonnet.compiled.running.operators import equal, plus
from segrelay.jsonnet.compiled.running.printing import text_of
from segrelay.jsonnet.compiled.running.values import (
    MISSING,
    Func,
    Lazy,
    array,
    boolean,
    call,
    field_names,
    function,
    has_field,
    is_object,
    items,
    kind_of,
    numeric,
    string,
    take,
    whole,
)


def _later(func: Any, *arguments: Any) -> Lazy:
    return Lazy(partial(call, func, arguments))


def _elements(value: Any) -> list[Any]:
    """Return the elements of an array, or the characters of a string."""
    elements = list(value) if value.__class__ is str else array(value)
    spend(len(elements) * A_TURN)
    return elements


@native("func arr", gives="array", name="map", calls=True)
def map_over(func: Any, arr: Any) -> list[Any]:
    function(func)
    return [_later(func, element) for element in _elements(arr)]


@native("func arr", gives="array", name="mapWithIndex", calls=True)
def map_with_index(func: Any, arr: Any) -> list[Any]:
    function(func)
    return [_later(func, at, each) for at, each in enumerate(_elements(arr))]


@native("func arr", gives="array", name="filter", calls=True)
def filtered(func: Any, arr: Any) -> list[Any]:
    function(func)
    spend(len(array(arr)) * A_TURN)
    return [element for element in arr if boolean(call(func, (element,)))]


@native("func arr", name="flatMap", calls=True)
def flat_map(func: Any, arr: Any) -> Any:
    function(func)
    made = [call(func, (element,)) for element in _elements(arr)]
    if arr.__class__ is str:
        return "".join(map(string, made))
    spend(sum(len(array(part)) for part in made))
    return [element for part in made for element in part]


@native("func arr init", lazy="init", calls=True)
def foldl(func: Any, arr: Any, init: Any) -> Any:
    function(func)
    result = init
    for element in _elements(arr):
        result = call(func, (result, element))
    return take(result)


@native("from to", gives="array", name="range")
def numbers_from(first: Any, last: Any) -> list[int]:
    spend(max(whole(last) - whole(first), 0))
    return list(range(first, last + 1))


@native("arr x", gives="bool")
def member(arr: Any, x: Any) -> bool:
    if arr.__class__ is str:
        return string(x) in arr
    return any(equal(value, x) for value in items(arr))


@native("arr elem", gives="bool")
def contains(arr: Any, elem: Any) -> bool:
    return any(equal(value, elem) for value in items(arr))


@native("arrs", gives="array", name="flattenArrays")
def flatten_arrays(arrs: Any) -> list[Any]:
    parts = [array(part) for part in items(arrs)]
    spend(sum(map(len, parts)))
    return [element for part in parts for element in part]


@native("arr", gives="number", name="sum", looks_at_all=True)
def sum_of(arr: Any) -> Any:
    total: Any = 0
    for value in items(arr):
        if value.__class__ is str:
            raise Doubtful
        total = plus(total, value)
    return total


natives(
    "arr",
    {
        "all": lambda arr: all(boolean(value) for value in items(arr)),
        "any": lambda arr: any(boolean(value) for value in items(arr)),
    },
    gives="bool",
    looks_at_all=True,
)
natives("arr", {"reverse": lambda arr: array(arr)[::-1]}, gives="array")


@native("arr keyF?", gives="array", name="sort", calls=True)
def sort_of(arr: Any, key: Any = MISSING) -> list[Any]:
    spend(len(array(arr)))
    if key is not MISSING:
        function(key)
    values = list(items(arr))
    keys = values if key is MISSING else [call(key, (value,)) for value in values]
    check = string if keys and keys[0].__class__ is str else numeric
    for each in keys:
        check(each)
    keyed = zip(keys, arr, strict=True)
    return [element for _, element in sorted(keyed, key=lambda pair: pair[0])]


def _field(target: Any, name: str) -> Any:
    """Return a field unevaluated: as a `dict` holds it, or a Lazy for an object with `self`."""
    return target[name] if target.__class__ is dict else Lazy(partial(target.__getitem__, name))


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
        "objectFields": lambda o: field_names(o),  # noqa: PLW0108 - its code names it in reasons
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

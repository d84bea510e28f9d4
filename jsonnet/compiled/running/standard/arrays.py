"""The functions of `std` for arrays; results of a given function are computed lazily.

Functions of `std` for sorting and sets. Keys other than all numbers or strings go to Jsonnet.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

from segrelay.jsonnet.compiled.running.limits import A_TURN, Doubtful, spend, tick
from segrelay.jsonnet.compiled.running.natives import native, natives
from segrelay.jsonnet.compiled.running.operators import equal, less, plus, sliced
from segrelay.jsonnet.compiled.running.values import (
    MISSING,
    Lazy,
    array,
    boolean,
    call,
    function,
    items,
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


@native("filter_func map_func arr", gives="array", name="filterMap", calls=True)
def filter_map(chooses: Any, makes: Any, arr: Any) -> list[Any]:
    function(makes)
    return [_later(makes, element) for element in filtered(chooses, arr)]


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


@native("func arr init", lazy="init", calls=True)
def foldr(func: Any, arr: Any, init: Any) -> Any:
    function(func)
    result = init
    for element in reversed(_elements(arr)):
        result = call(func, (element, result))
    return take(result)


@native("from to", gives="array", name="range")
def numbers_from(first: Any, last: Any) -> list[int]:
    spend(max(whole(last) - whole(first), 0))
    return list(range(first, last + 1))


@native("sz func", gives="array", name="makeArray", calls=True)
def make_array(size: Any, func: Any) -> list[Any]:
    function(func)
    if whole(size) < 0:
        raise Doubtful
    spend(size)
    return [_later(func, at) for at in range(size)]


@native("arr x", gives="bool")
def member(arr: Any, x: Any) -> bool:
    if arr.__class__ is str:
        return string(x) in arr
    return any(equal(value, x) for value in items(arr))


@native("arr elem", gives="bool")
def contains(arr: Any, elem: Any) -> bool:
    return any(equal(value, elem) for value in items(arr))


@native("arr x", gives="number")
def count(arr: Any, x: Any) -> int:
    return sum(equal(value, x) for value in items(arr))


@native("value arr", lazy="value", gives="array")
def find(value: Any, arr: Any) -> list[int]:
    return [at for at, each in enumerate(items(arr)) if equal(each, take(value))]


@native("arrs", gives="array", name="flattenArrays")
def flatten_arrays(arrs: Any) -> list[Any]:
    parts = [array(part) for part in items(arrs)]
    spend(sum(map(len, parts)))
    return [element for part in parts for element in part]


@native("value", gives="array", name="flattenDeepArray")
def flatten_deep(value: Any) -> list[Any]:
    tick()
    if value.__class__ is not list:
        return [value]
    return [each for element in items(value) for each in flatten_deep(element)]


@native("arr", gives="number", name="sum", looks_at_all=True)
def sum_of(arr: Any) -> Any:
    total: Any = 0
    for value in items(arr):
        if value.__class__ is str:
            raise Doubtful
        total = plus(total, value)
    return total


@native("arr at", gives="array", name="removeAt")
def remove_at(arr: Any, at: Any) -> list[Any]:
    if not 0 <= whole(at) < len(array(arr)):
        raise Doubtful
    return [each for number, each in enumerate(arr) if number != at]


@native("arr elem", gives="array")
def remove(arr: Any, elem: Any) -> list[Any]:
    at = next((number for number, value in enumerate(items(arr)) if equal(value, elem)), None)
    return array(arr) if at is None else remove_at(arr, at)


def _extreme(arr: Any, key: Any, on_empty: Any, *, largest: bool) -> Any:
    values = list(items(arr))
    if key is not MISSING:
        function(key)
    if not values:
        if on_empty is MISSING:
            raise Doubtful
        return take(on_empty)
    keys = values if key is MISSING else [call(key, (value,)) for value in values]
    best = 0
    for at in range(1, len(keys)):
        if less(keys[best], keys[at]) if largest else less(keys[at], keys[best]):
            best = at
    return values[best]


@native("arr keyF? onEmpty?", lazy="onEmpty", name="minArray", calls=True)
def smallest_of(arr: Any, key: Any = MISSING, on_empty: Any = MISSING) -> Any:
    return _extreme(arr, key, on_empty, largest=False)


@native("arr keyF? onEmpty?", lazy="onEmpty", name="maxArray", calls=True)
def largest_of(arr: Any, key: Any = MISSING, on_empty: Any = MISSING) -> Any:
    return _extreme(arr, key, on_empty, largest=True)


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


@native("indexable index end step", name="slice")
def slice_of(indexable: Any, start: Any, end: Any, step: Any) -> Any:
    return sliced(indexable, start, end, step)


Keyed = list[tuple[Any, Any]]
"""Pairs of a sort key and the element that it stands for."""


def _keyed(arr: Any, key: Any) -> Keyed:
    spend(len(array(arr)))
    if key is not MISSING:
        function(key)
    elements = list(arr)
    values = list(items(arr))
    keys = values if key is MISSING else [call(key, (value,)) for value in values]
    check = string if keys and keys[0].__class__ is str else numeric
    for each in keys:
        check(each)
    return list(zip(keys, elements, strict=True))


def _sorted(keyed: Keyed) -> Keyed:
    order = sorted(range(len(keyed)), key=[key for key, _ in keyed].__getitem__)
    return [keyed[at] for at in order]


def _unique(keyed: Keyed) -> Keyed:
    return [pair for at, pair in enumerate(keyed) if not at or keyed[at - 1][0] != pair[0]]


def _sets_elements(keyed: Keyed) -> list[Any]:
    return [element for _, element in keyed]


def _set(arr: Any, key: Any) -> Keyed:
    """Return the keyed elements of an array that is a set: sorted, and each there once."""
    keyed = _keyed(arr, key)
    keys = [key for key, _ in keyed]
    if any(not before < after for before, after in pairwise(keys)):
        raise Doubtful
    return keyed


def _sets(a: Any, b: Any, key: Any) -> tuple[Keyed, Keyed]:
    one, other = _set(a, key), _set(b, key)
    if one and other and (one[0][0].__class__ is str) != (other[0][0].__class__ is str):
        raise Doubtful
    return one, other


@native("arr keyF?", gives="array", name="sort", calls=True)
def sort_of(arr: Any, key: Any = MISSING) -> list[Any]:
    if arr.__class__ is str:
        raise Doubtful
    return _sets_elements(_sorted(_keyed(arr, key)))


@native("arr keyF?", gives="array", calls=True)
def uniq(arr: Any, key: Any = MISSING) -> list[Any]:
    return _sets_elements(_unique(_keyed(arr, key)))


@native("arr keyF?", gives="array", name="set", calls=True)
def set_of(arr: Any, key: Any = MISSING) -> list[Any]:
    return _sets_elements(_unique(_sorted(_keyed(arr, key))))


@native("x arr keyF?", gives="bool", name="setMember", calls=True)
def set_member(x: Any, arr: Any, key: Any = MISSING) -> bool:
    one, other = _sets([x], arr, key)
    return one[0][0] in [key for key, _ in other]


@native("a b keyF?", gives="array", name="setUnion", calls=True)
def set_union(a: Any, b: Any, key: Any = MISSING) -> list[Any]:
    one, other = _sets(a, b, key)
    return _sets_elements(_unique(_sorted(one + other)))


@native("a b keyF?", gives="array", name="setInter", calls=True)
def set_inter(a: Any, b: Any, key: Any = MISSING) -> list[Any]:
    one, other = _sets(a, b, key)
    keys = {key for key, _ in other}
    return [element for key, element in one if key in keys]


@native("a b keyF?", gives="array", name="setDiff", calls=True)
def set_diff(a: Any, b: Any, key: Any = MISSING) -> list[Any]:
    one, other = _sets(a, b, key)
    keys = {key for key, _ in other}
    return [element for key, element in one if key not in keys]

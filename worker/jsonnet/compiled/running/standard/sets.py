"""Functions of `std` for sorting and sets. Keys other than all numbers or strings go to Jsonnet."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from worker.jsonnet.compiled.running.limits import Doubtful, spend
from worker.jsonnet.compiled.running.natives import native
from worker.jsonnet.compiled.running.values import (
    MISSING,
    array,
    call,
    function,
    items,
    numeric,
    string,
)

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


def _elements(keyed: Keyed) -> list[Any]:
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
    return _elements(_sorted(_keyed(arr, key)))


@native("arr keyF?", gives="array", calls=True)
def uniq(arr: Any, key: Any = MISSING) -> list[Any]:
    return _elements(_unique(_keyed(arr, key)))


@native("arr keyF?", gives="array", name="set", calls=True)
def set_of(arr: Any, key: Any = MISSING) -> list[Any]:
    return _elements(_unique(_sorted(_keyed(arr, key))))


@native("x arr keyF?", gives="bool", name="setMember", calls=True)
def set_member(x: Any, arr: Any, key: Any = MISSING) -> bool:
    one, other = _sets([x], arr, key)
    return one[0][0] in [key for key, _ in other]


@native("a b keyF?", gives="array", name="setUnion", calls=True)
def set_union(a: Any, b: Any, key: Any = MISSING) -> list[Any]:
    one, other = _sets(a, b, key)
    return _elements(_unique(_sorted(one + other)))


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

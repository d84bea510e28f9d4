"""The operators of the language on evaluated values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from segrelay.jsonnet.compiled.running.formats import formatted
from segrelay.jsonnet.compiled.running.limits import (
    A_TURN,
    AssertFailed,
    Doubtful,
    note_failed,
    spend,
    spend_text,
)
from segrelay.jsonnet.compiled.running.printing import text_of
from segrelay.jsonnet.compiled.running.values import (
    Composite,
    Func,
    Layer,
    Super,
    array,
    field_names,
    is_object,
    layers_of,
    number,
    numeric,
    string,
    take,
    whole,
)

Handle = Any
"""A value, or a Lazy of one."""


def plus(left: Any, right: Any) -> Any:
    """`+`: of numbers, arrays, objects, and of a string with anything."""
    if left.__class__ is str or right.__class__ is str:
        joined = text_of(left) + text_of(right)
        spend_text(len(joined))
        return joined
    if left.__class__ is list and right.__class__ is list:
        spend(len(left) + len(right))
        return left + right
    if left.__class__ is dict and right.__class__ is dict:
        return {**left, **right}
    if is_object(left) and is_object(right):
        return Composite(layers_of(left) + layers_of(right))
    return number(numeric(left) + numeric(right))


def minus(left: Any, right: Any) -> Any:
    """`-`."""
    return number(numeric(left) - numeric(right))


def times(left: Any, right: Any) -> Any:
    """`*`."""
    product = numeric(left) * numeric(right)
    return number(product) if product else number(float(left) * float(right))


def divided(left: Any, right: Any) -> Any:
    """`/`; a division by zero is an error."""
    return number(numeric(left) / numeric(right))


def modulo(left: Any, right: Any) -> Any:
    """`%` of numbers: the result has the sign of the left one."""
    return number(math.fmod(numeric(left), numeric(right)))


def negated(value: Any) -> Any:
    """`-`, with one operand; of 0 it is -0."""
    return number(-float(value)) if numeric(value) == 0 else -value


def equal(left: Any, right: Any) -> bool:
    """`==`: deep; stops at the first difference; functions cannot be compared."""
    kind = left.__class__
    other = right.__class__
    if kind is str or other is str:
        return bool(kind is other and left == right)
    if left is None or right is None or kind is bool or other is bool:
        return left is right
    if kind is list and other is list:
        return len(left) == len(right) and all(
            equal(take(mine), take(theirs)) for mine, theirs in zip(left, right, strict=True)
        )
    if is_object(left) and is_object(right):
        names = field_names(left)
        return names == field_names(right) and all(
            equal(take(left[name]), take(right[name])) for name in names
        )
    if kind is Func and other is Func:
        raise Doubtful
    are_numbers = isinstance(left, int | float) and isinstance(right, int | float)
    return are_numbers and bool(left == right)


def less(left: Any, right: Any) -> bool:
    """`<` of two numbers or strings; arrays, and what engines differ on, are left to Jsonnet."""
    if left.__class__ is str and right.__class__ is str:
        return bool(left < right)
    return bool(numeric(left) < numeric(right))


def index(target: Any, key: Any) -> Any:
    """`target[key]`; below zero the engines differ."""
    if target.__class__ is dict:
        return take(target[string(key)])
    if target.__class__ is Composite:
        return target[string(key)]
    at = whole(key)
    if at < 0 or target.__class__ not in (list, str):
        raise Doubtful
    return take(target[at])


def sliced(target: Any, start: Any, end: Any, step: Any) -> Any:
    """`target[start:end:step]`; bounds below zero count from the end, as in Python."""
    if target.__class__ not in (list, str):
        raise Doubtful
    first, last = (None if bound is None else whole(bound) for bound in (start, end))
    pace = 1 if step is None else whole(step)
    if pace < 1:
        raise Doubtful
    return target[first:last:pace]


def add_to_base(base: Super, name: str, value: Callable[[], Any]) -> Any:
    """`name+: value`."""
    return plus(base[name], value()) if base.has(name) else value()


# Comprehensions.


def each(source: Any, body: Callable[[Any], Handle]) -> list[Handle]:
    """Return the result of a comprehension's body for each element of an array."""
    elements = array(source)
    spend(len(elements) * A_TURN)
    return [body(element) for element in elements]


def over(source: Any, body: Callable[[Any], list[Handle] | tuple[Handle, ...]]) -> list[Handle]:
    """Return the results of a comprehension's body for all elements, joined into one list."""
    found: list[Handle] = []
    elements = array(source)
    spend(len(elements) * A_TURN)
    for element in elements:
        found += body(element)
    spend(len(found))
    return found


def plus_all(first: Any, *others: Any) -> Any:
    """`a + b + c`."""
    for other in others:
        first = plus(first, other)
    return first


def remainder(left: Any, right: Any) -> Any:
    """`%`: of numbers, or the formatting of a string."""
    return formatted(left, right) if left.__class__ is str else modulo(left, right)


def joined(
    made: dict[str, Any], computed: Iterable[tuple[Any, Callable[[], Any]]]
) -> dict[str, Any]:
    """Add fields whose names are computed; a name that is null leaves its field out."""
    for name, make in computed:
        if name is None:
            continue
        if string(name) in made:
            raise Doubtful
        made[name] = make()
    return made


def layer_names(
    names: Mapping[str, tuple[int, str]], computed: Iterable[tuple[Any, str]]
) -> dict[str, tuple[int, str]]:
    """Return the names of a layer's fields; computed names stand behind the others."""
    all_names = dict(names)
    for at, (name, colons) in enumerate(computed, len(names)):
        if name is None:
            continue
        if string(name) in all_names:
            raise Doubtful
        all_names[name] = (at, colons)
    return all_names


def composed(fields: Iterable[tuple[Any, Callable[[Composite, Super], Any]]]) -> Composite:
    """Return an object of fields whose names are computed and whose values refer to it."""
    named = [(name, make) for name, make in fields if name is not None]
    names = layer_names({}, ((name, ":") for name, _ in named))
    makers = [make for _, make in named]
    return Composite((Layer(names, lambda this, base: tuple(m(this, base) for m in makers)),))


def failed(message: Any = None) -> NoReturn:
    """Fail an `assert`."""
    raise AssertFailed(_put(message))


def failing(message: Any = None) -> bool:
    """Note an `assert` that fails in an expression; return true, so that evaluation goes on."""
    note_failed(_put(message))
    return True


def _put(message: Any) -> str:
    """Return the message of an `assert` as rjsonnet prints it, also if there is none."""
    return "null" if message is None else string(message) or '"" (empty string)'

"""Values of compiled templates.

null, booleans and strings are Python's. A number is an `int` where it is whole and no larger than
2^53, and a `float` otherwise (also -0). An array is a `list`, an object without `self` a `dict`:
their elements may be lazy, or numbers as the profile's JSON has them, so whoever takes one out
calls `take`. All other objects are `Composite`, functions are `Func`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from segrelay.jsonnet.compiled.running.limits import ENDLESS, Doubtful, Exhausted

EXACT: Final = 2**53
"""The largest number up to which a double holds every whole number."""


class Lazy:
    """A value that is computed when it is asked for, once."""

    __slots__ = ("_make", "_value")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make: Callable[[], Any] | None = make
        self._value: Any = None

    def get(self) -> Any:
        make = self._make
        if make is not None:
            self._make = _endless
            try:
                self._value = make()
            except BaseException:
                self._make = make
                raise
            self._make = None
        return self._value


def _endless() -> Any:
    raise Exhausted(ENDLESS)


class Func:
    """A function of Jsonnet as a value.

    Args:
        run: The Python function, which takes a value, a Lazy or MISSING for each parameter.
        required: A flag for each parameter, True if it has no default.
    """

    __slots__ = ("names", "required", "run")

    def __init__(
        self, run: Callable[..., Any], names: tuple[str, ...], required: tuple[bool, ...]
    ) -> None:
        self.run = run
        self.names = names
        self.required = required


MISSING: Final = object()
"""Stands for an argument that was not given: the parameter's default holds."""


def call(target: Any, arguments: tuple[Any, ...], named: Mapping[str, Any] | None = None) -> Any:
    """Call a value that should be a function."""
    if target.__class__ is not Func or len(arguments) > len(target.names):
        raise Doubtful
    given = list(arguments) + [MISSING] * (len(target.names) - len(arguments))
    for name, value in (named or {}).items():
        at = target.names.index(name)
        if given[at] is not MISSING:
            raise Doubtful
        given[at] = value
    for value, required in zip(given, target.required, strict=True):
        if required and value is MISSING:
            raise Doubtful
    return target.run(*given)


def number(value: float) -> int | float:
    """Return a number as compiled templates keep it: an `int` if whole and exact, or a `float`."""
    if value.__class__ is int:
        return value if -EXACT <= value <= EXACT else float(value)
    if value.is_integer() and -EXACT <= value <= EXACT:
        return value if value == 0 and str(value)[0] == "-" else int(value)
    if value - value != 0:  # inf and nan
        raise Doubtful
    return value


def take(value: Any) -> Any:
    """Return the value of an element, an argument or a variable."""
    kind = value.__class__
    if kind is str:
        return value
    if kind is Lazy:
        return value.get()
    if kind is int or kind is float:
        return number(value)
    return value


class Layer:
    """The part of an object that one object literal gives to it.

    Args:
        names: The index of each field's value in what `make` returns, and its colons, by the
            field's name.
        make: A function that gets the object and the meaning of `super` in it, and returns the
            fields' values.
        is_checked: True if a last value behind those of the fields says whether the asserts of the
            literal hold.
    """

    __slots__ = ("is_checked", "make", "names")

    def __init__(
        self,
        names: Mapping[str, tuple[int, str]],
        make: Callable[[Composite, Super], tuple[Any, ...]],
        is_checked: bool = False,  # noqa: FBT001, FBT002 - generated code says it by position
    ) -> None:
        self.names = names
        self.make = make
        self.is_checked = is_checked


class Composite:
    """An object whose fields may refer to `self` and `super`, or are hidden."""

    __slots__ = ("_made", "_unchecked", "layers")

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.layers = layers
        self._unchecked = any(layer.is_checked for layer in layers)
        self._made: list[tuple[Any, ...] | None] = [None] * len(layers)

    def __getitem__(self, name: str) -> Any:
        return self.below(len(self.layers), name)

    def below(self, end: int, name: str) -> Any:
        """Return a field's value as the layers before `end` have it."""
        if self._unchecked:
            self._check()
        for at in range(end - 1, -1, -1):
            entry = self.layers[at].names.get(name)
            if entry is not None:
                return take(self._values(at)[entry[0]])
        raise Doubtful

    def has(self, name: str, end: int | None = None) -> bool:
        """Return whether there is a field, hidden or not."""
        return any(name in layer.names for layer in self.layers[:end])

    def names(self, *, hidden: bool = False) -> list[str]:
        if self._unchecked:
            self._check()
        colons: dict[str, str] = {}
        for layer in self.layers:
            for name, (_, own) in layer.names.items():
                colons[name] = colons.get(name, ":") if own == ":" else own
        return sorted(name for name, own in colons.items() if hidden or own != "::")

    def _check(self) -> None:
        """Evaluate the asserts, no later than Jsonnet would; they may look at the fields."""
        self._unchecked = False
        for at, layer in enumerate(self.layers):
            if layer.is_checked:
                take(self._values(at)[-1])

    def _values(self, at: int) -> tuple[Any, ...]:
        values = self._made[at]
        if values is None:
            values = self.layers[at].make(self, Super(self, at))
            self._made[at] = values
        return values


class Super:
    """The meaning of `super` in a layer."""

    __slots__ = ("_end", "_target")

    def __init__(self, target: Composite, end: int) -> None:
        self._target = target
        self._end = end

    def __getitem__(self, name: str) -> Any:
        return self._target.below(self._end, string(name))

    def has(self, name: str) -> bool:
        return self._target.has(string(name), self._end)


def layers_of(value: dict[str, Any] | Composite) -> tuple[Layer, ...]:
    """Return the layers of an object."""
    if isinstance(value, Composite):
        return value.layers
    elements = tuple(value.values())
    names = {name: (at, ":") for at, name in enumerate(value)}
    return (Layer(names, lambda _self, _super: elements),)


# What a value is.


def string(value: Any) -> str:
    """Return a value that has to be a string."""
    if value.__class__ is not str:
        raise Doubtful
    return value


def array(value: Any) -> list[Any]:
    """Return a value that has to be an array."""
    if value.__class__ is not list:
        raise Doubtful
    return value


def boolean(value: Any) -> bool:
    """Return a value that has to be a boolean."""
    if value is True or value is False:
        return value
    raise Doubtful


def function(value: Any) -> Func:
    """Return a value that has to be a function."""
    if value.__class__ is not Func:
        raise Doubtful
    return value


def numeric(value: Any) -> int | float:
    """Return a value that has to be a number."""
    if value.__class__ is int or value.__class__ is float:
        return value
    raise Doubtful


def whole(value: Any) -> int:
    """Return a value that has to be a whole number."""
    if value.__class__ is int:
        return value
    if value.__class__ is float and value == 0:
        return 0
    raise Doubtful


def field_names(value: Any, *, hidden: bool = False) -> list[str]:
    """Return the names of an object's fields, sorted."""
    if value.__class__ is dict:
        return sorted(value)
    if value.__class__ is Composite:
        return value.names(hidden=hidden)
    raise Doubtful


def is_object(value: Any) -> bool:
    """Return whether a value is an object."""
    return value.__class__ is dict or value.__class__ is Composite


def has_field(name: Any, target: Any) -> bool:
    """Return whether an object has a field, hidden or not."""
    if target.__class__ is dict:
        return string(name) in target
    if target.__class__ is Composite:
        return target.has(string(name))
    raise Doubtful


def items(value: Any) -> Iterator[Any]:
    """Return the values of an array's elements."""
    return map(take, array(value))


_KINDS: Final = {
    type(None): "null",
    bool: "boolean",
    str: "string",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
    Composite: "object",
    Func: "function",
}


def kind_of(value: Any) -> str:
    """Return the name of a value's type, as `std.type` does."""
    return _KINDS[value.__class__]

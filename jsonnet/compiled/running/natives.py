"""The descriptions of functions that templates call: those of `std`, and those of the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import CodeType
from typing import Any, Final

from segrelay.jsonnet.compiled.running.limits import Doubtful
from segrelay.jsonnet.compiled.running.values import MISSING, Composite, Func, Layer, take
from segrelay.jsonnet.files import LibraryFunction

Implementation = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Native:
    """A function of `std`.

    Args:
        run: The Python function, which gets values, or handles for the parameters in `lazy`.
        names: the parameters' names.
        required: the number of parameters without a default.
        lazy: The positions of arguments that may never be looked at.
        gives: the kind of the result, where it is always the same.
        calls: True if it calls a function that it is given.
        looks_at_all: True if it looks at the elements of its array, all or up to one that decides.
    """

    run: Implementation
    names: tuple[str, ...]
    required: int
    lazy: frozenset[int]
    gives: str
    calls: bool
    looks_at_all: bool

    def as_value(self) -> Func:
        """Return the function as a value that a template can hand on."""

        def run(*handles: Any) -> Any:
            given = handles[: len(handles) - handles.count(MISSING)]
            if MISSING in given:
                raise Doubtful
            return self.run(*(h if at in self.lazy else take(h) for at, h in enumerate(given)))

        flags = tuple(at < self.required for at in range(len(self.names)))
        return Func(run, self.names, flags)


NATIVES: Final[dict[str, Native]] = {}
"""The functions of `std`, by their names."""


def native(
    names: str,
    *,
    gives: str = "any",
    lazy: str = "",
    calls: bool = False,
    looks_at_all: bool = False,
    name: str = "",
) -> Callable[[Implementation], Implementation]:
    """Register a function of `std`; `name?` is a parameter with a default."""
    words = names.split()
    parameters = tuple(word.rstrip("?") for word in words)
    required = sum(not word.endswith("?") for word in words)
    positions = frozenset(parameters.index(each) for each in lazy.split())

    def register(run: Implementation) -> Implementation:
        key = name or run.__name__
        if key in NATIVES:
            raise AssertionError(key)
        NATIVES[key] = Native(run, parameters, required, positions, gives, calls, looks_at_all)
        return run

    return register


def natives(
    names: str, runs: Mapping[str, Implementation], *, gives: str, looks_at_all: bool = False
) -> None:
    """Register functions of `std` that have the same parameters and give the same kind."""
    for name, run in runs.items():
        native(names, gives=gives, looks_at_all=looks_at_all, name=name)(run)


def doubtful(why: str) -> Any:
    """Raise `Doubtful`, in the place of code that the compiled form leaves to Jsonnet."""
    raise Doubtful(why)


_FAULTS: Final[dict[type[BaseException], str]] = {
    KeyError: "a field that an object does not have",
    IndexError: "an element that an array does not have",
    ZeroDivisionError: "a division by zero",
}
_OTHER_KIND: Final = "a value of another kind than expected"
_ROOMS: Final = {
    "formats": "a format (%)",
    "printing": "a text that engines print differently",
}
"""The reasons for which modules outside of `std` leave an event to Jsonnet, by module name."""


def reason_of(error: BaseException) -> str:
    """Say what the engine was needed for: the function of `std` that gave up, or the fault."""
    if isinstance(error, Doubtful) and error.why:
        return error.why
    codes = _codes(error)
    natives = {native.run.__code__: f"std.{name}" for name, native in NATIVES.items()}
    named = next((natives[code] for code in reversed(codes) if code in natives), "")
    room = codes[-1].co_filename.removesuffix(".py").rpartition("/")[2]
    return named or _ROOMS.get(room) or _FAULTS.get(type(error), _OTHER_KIND)


def _codes(error: BaseException) -> list[CodeType]:
    """Return the code objects of an error's traceback, from the outermost call to the innermost."""
    codes: list[CodeType] = []
    at = error.__traceback__
    while at is not None:
        codes.append(at.tb_frame.f_code)
        at = at.tb_next
    return codes


Fields = Mapping[str, Any]
"""A profile or settings."""


def function_of(
    functions: Mapping[str, LibraryFunction], name: str, profile: Fields, settings: Fields
) -> Func:
    """Return a function of the library as a value."""
    entry = functions[name]
    required = tuple(at < entry.required for at in range(len(entry.names)))
    return Func(partial(entry.run, profile, settings), entry.names, required)


def library_of(
    functions: Mapping[str, LibraryFunction], profile: Fields, settings: Fields
) -> Composite:
    """Return the library as a value: an object of hidden functions."""
    names = {name: (at, "::") for at, name in enumerate(functions)}
    made = tuple(function_of(functions, name, profile, settings) for name in functions)
    return Composite((Layer(names, lambda _self, _super: made),))

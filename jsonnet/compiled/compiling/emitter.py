"""The shared parts of the compiler: fresh names, constants, and the protocol of its parts.

The compiler's values: pieces of Python code, the meanings of names, and its refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn, Protocol

from segrelay.jsonnet.compiled.compiling.analysis import Analysis
from segrelay.jsonnet.files import LibraryFunction
from segrelay.jsonnet.syntax import tree


class OutsideSubset(Exception):  # noqa: N818 - a fact about the template, no error
    """A part of the template is outside of the subset that is compiled."""

    def __init__(self, what: str, file: str, at: int) -> None:
        super().__init__(what, file, at)
        self.what = what
        self.file = file
        self.at = at


@dataclass(frozen=True, slots=True)
class Code:
    """A Python expression that gives a value.

    Args:
        kind: the kind of the resulting value, where it is known.
        total: True if it cannot fail and costs little: it may be evaluated where Jsonnet would not.
        constant: True if it is the same for every event.
    """

    text: str
    kind: str = "any"
    total: bool = False
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the generated code.

    Args:
        source: The expression, if it is an array or object in a field of a module; None otherwise.
    """

    code: Code
    handle: str
    source: Placed | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A variable that is used once: its expression stands in its place."""

    node: tree.Node
    scope: Scope


@dataclass(frozen=True, slots=True)
class KnownFunction:
    """A function that is known when a call is compiled, so that the call needs no checks.

    Args:
        strict: A flag for each parameter, True if every call evaluates its argument.
        value: The code that makes the function a value of Jsonnet.
    """

    name: str
    parameters: tuple[tree.Parameter, ...]
    strict: tuple[bool, ...]
    value: str


@dataclass(frozen=True, slots=True)
class Library:
    """The library's value that depends on the event, or one of its functions."""

    function: str = ""


@dataclass(frozen=True, slots=True)
class Standard:
    """`std`, or one of its functions."""

    function: str = ""


@dataclass(frozen=True, slots=True)
class Module:
    """An object that is only used to look up its fields, each of which becomes a variable."""

    fields: Mapping[str, Binding]


Static = Library | Standard | KnownFunction | Module
Binding = Variable | Placed | Static


@dataclass(frozen=True, slots=True)
class Scope:
    """The meanings of the names that are visible at a place.

    Args:
        this: The variable for `self`; "" outside of objects.
        base: The variable for `super`.
        outermost: The variable for `$`.
        repeats: True within a function, which may call itself without end.
    """

    file: str
    names: Mapping[str, Binding]
    this: str = ""
    base: str = ""
    outermost: str = ""
    repeats: bool = False

    def having(self, names: Mapping[str, Binding]) -> Scope:
        """Return the scope with more names."""
        return replace(self, names={**self.names, **names})


def literal(value: Any) -> Code:
    """Return the code of a constant."""
    kinds = {bool: "bool", str: "string", int: "number", float: "number"}
    return Code(repr(value), kinds.get(type(value), "null"), total=True, constant=True)


@dataclass(slots=True)
class Emitter:
    """Makes names that no template can use, and collects code that is the same for all events.

    Args:
        lines: The assignments that the module begins with.
        calls: the number of emitted calls that may be recursive.
        bodies: The known functions by the names of their code, once they are defined.
        open: The known functions whose bodies are just being written out in the place of a call.
    """

    lines: list[str] = field(default_factory=list)
    calls: int = 0
    bodies: dict[str, Placed] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    _names: int = 0

    def fresh(self, letter: str) -> str:
        self._names += 1
        return f"{letter}{self._names}"

    def hoisted(self, text: str) -> str:
        """Return the name of an expression that is evaluated once."""
        name = self.fresh("k")
        self.lines.append(f"{name} = {text}")
        return name


class ExpressionCompiler(Protocol):
    """The compiler, as its parts see it."""

    emitter: Emitter
    analysis: Analysis

    functions: Mapping[str, LibraryFunction]

    def value(self, node: tree.Node, scope: Scope) -> Code:
        """Return code that gives the value of an expression, without evaluating its elements."""

    def deep(self, node: tree.Node, scope: Scope) -> str:
        """Return code that gives the whole JSON value of an expression, in new containers."""

    def handle(self, node: tree.Node, scope: Scope) -> Code:
        """Return code that gives the value of an expression, or a Lazy of it."""

    def truth(self, node: tree.Node, scope: Scope) -> Code:
        """Return code that gives the boolean value of an expression."""

    def static(self, node: tree.Node, scope: Scope) -> Static | None:
        """Return the function, library or module that an expression is known to be, if any."""

    def module(self, node: tree.Node, scope: Scope) -> tuple[list[str], Module] | None:
        """Return an object's assignments and module; None if it can't be compiled as one."""

    def function(self, node: tree.Function, scope: Scope) -> str:
        """Return the code of a Python function whose arguments are handles."""


def refuse(what: str, scope: Scope, at: int) -> NoReturn:
    """Refuse to compile the template."""
    raise OutsideSubset(what, scope.file, at)


def left_to_jsonnet(why: str) -> str:
    """Return code that leaves the event to Jsonnet, once it is evaluated."""
    return f"doubtful({why!r})"


_MISSES: Final = left_to_jsonnet("a field that an object does not have")
NO_FIELD: Final = Variable(Code(_MISSES), f"Lazy(lambda: {_MISSES})")


def taken(name: str, raw: str = "") -> str:
    """Return the code of a value as `take` returns it, without the call where it has no effect.

    Args:
        name: The name of a variable.
        raw: The code of the value to assign to the variable first; "" = it has its value already.
    """
    given = f"({name} := {raw})" if raw else name
    return f"({name} if {given}.__class__ is str or {name} is None else take({name}))"


def parameter(name: str) -> Variable:
    """Return the variable for a parameter or element: a value, a Lazy or a profile's raw value."""
    return Variable(Code(taken(name)), name)


def tupled(parts: Iterable[str]) -> str:
    """Return the code of a tuple of these parts."""
    listed = list(parts)
    return f"({', '.join(listed)}{',' if len(listed) == 1 else ''})"

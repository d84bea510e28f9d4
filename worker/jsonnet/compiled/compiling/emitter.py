"""The shared parts of the compiler: fresh names, constants, and the protocol of its parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn, Protocol

from worker.jsonnet.compiled.compiling.analysis import Analysis
from worker.jsonnet.compiled.compiling.code import (
    Code,
    Module,
    OutsideSubset,
    Scope,
    Static,
    Variable,
)
from worker.jsonnet.syntax import tree


@dataclass(slots=True)
class Emitter:
    """Makes names that no template can use, and collects code that is the same for all events.

    Args:
        lines: Assignments that the module begins with.
        calls: How many calls were emitted that might come back to where they stand.
    """

    lines: list[str] = field(default_factory=list)
    calls: int = 0
    _names: int = 0

    def fresh(self, letter: str) -> str:
        """Return a new name."""
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


def parameter(name: str) -> Variable:
    """Return the variable for a parameter or element: a value, a Lazy or a profile's raw value."""
    text = f"({name} if {name}.__class__ is str else take({name}))"
    return Variable(Code(text), name)


def tupled(parts: Iterable[str]) -> str:
    """Return the code of a tuple of these parts."""
    listed = list(parts)
    return f"({', '.join(listed)}{',' if len(listed) == 1 else ''})"

"""The compiler's values: pieces of Python code, the meanings of names, and its refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from worker.jsonnet.syntax import tree


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
        kind: What kind of value comes out, if that is known.
        total: It cannot fail and costs little: it may be evaluated where Jsonnet would not.
        constant: It is the same for every event.
    """

    text: str
    kind: str = "any"
    total: bool = False
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the generated code."""

    code: Code
    handle: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A variable that is used once: its expression stands in its place."""

    node: tree.Node
    scope: Scope


@dataclass(frozen=True, slots=True)
class KnownFunction:
    """A function that is known when a call is compiled, so that the call needs no checks.

    Args:
        strict: For each parameter, whether every call looks at it.
        value: Gives it as a value.
    """

    name: str
    parameters: tuple[tree.Parameter, ...]
    strict: tuple[bool, ...]
    value: str


@dataclass(frozen=True, slots=True)
class Library:
    """`import "lytemplates.libsonnet"`, or one of its functions."""

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
        repeats: It is within a function, which may call itself without end.
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

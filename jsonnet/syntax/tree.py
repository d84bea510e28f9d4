"""The syntax tree of Jsonnet. `at` is the offset in the source at which a node begins.

A higher limit on recursion: trees may be nested deeper than Python allows.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Node:
    """An expression.

    Args:
        at: Offset in the source.
    """

    at: int


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """`null`, `true`, `false` or a string."""

    value: str | bool | None


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A number as it is written, without separators."""

    text: str


@dataclass(frozen=True, slots=True)
class Self(Node):
    """`self`."""


@dataclass(frozen=True, slots=True)
class Dollar(Node):
    """`$`, the outermost object."""


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Array(Node):
    """`[a, b]`."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class For:
    """`for name in source`."""

    name: str
    source: Node


@dataclass(frozen=True, slots=True)
class Only:
    """`if condition` of a comprehension."""

    condition: Node


Specs = tuple[For | Only, ...]


@dataclass(frozen=True, slots=True)
class ArrayOf(Node):
    """`[item for …]`."""

    item: Node
    specs: Specs


@dataclass(frozen=True, slots=True)
class Bind:
    """`name = value`; a function where it was written as `name(…) = value`."""

    at: int
    name: str
    value: Node


@dataclass(frozen=True, slots=True)
class Check:
    """`assert condition : message`."""

    at: int
    condition: Node
    message: Node | None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object.

    Args:
        name: A constant where it is not computed.
        visibility: One to three colons.
        adds: It was written with `+:`.
        value: A function where it was written as a method.
        is_computed: The name was written in brackets: it may be null, and sees no `self`.
    """

    at: int
    name: Node
    visibility: Literal[":", "::", ":::"]
    adds: bool
    value: Node
    is_computed: bool


@dataclass(frozen=True, slots=True)
class Object(Node):
    """`{ … }`."""

    fields: tuple[Field, ...]
    binds: tuple[Bind, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class ObjectOf(Node):
    """`{ [name]: value for … }`."""

    field: Field
    binds: tuple[Bind, ...]
    specs: Specs


@dataclass(frozen=True, slots=True)
class Index(Node):
    """`target[key]`, `target.key`."""

    target: Node
    key: Node


@dataclass(frozen=True, slots=True)
class SuperIndex(Node):
    """`super[key]`, `super.key`."""

    key: Node


@dataclass(frozen=True, slots=True)
class InSuper(Node):
    """`key in super`."""

    key: Node


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """`target[start:end:step]`."""

    target: Node
    start: Node | None
    end: Node | None
    step: Node | None


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`target(a, name=b)`."""

    target: Node
    arguments: tuple[Node, ...]
    named: tuple[tuple[str, Node], ...]
    is_strict: bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function."""

    at: int
    name: str
    default: Node | None


@dataclass(frozen=True, slots=True)
class Function(Node):
    """`function(…) body`."""

    parameters: tuple[Parameter, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Local(Node):
    """`local binds; body`."""

    binds: tuple[Bind, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class If(Node):
    """`if condition then yes else no`."""

    condition: Node
    yes: Node
    no: Node | None


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`-operand` and the like."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`left operator right`; `left { … }` is a `+`."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Import(Node):
    """`import "path"` and its kin.

    Args:
        path: What the string stands for.
        end: Offset behind the string.
    """

    word: Literal["import", "importstr", "importbin"]
    path: str
    end: int


@dataclass(frozen=True, slots=True)
class Assert(Node):
    """`assert condition : message; body`."""

    check: Check
    body: Node


@dataclass(frozen=True, slots=True)
class Error(Node):
    """`error message`."""

    message: Node


_FRAMES: Final = 20_000
"""The limit on recursion: trees are up to 2,000 nodes deep, and walking takes some frames for each.
Since Python 3.11 a call from Python to Python takes nothing from the C stack."""


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Raise the limit on recursion within the block."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)

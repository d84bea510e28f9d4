"""The syntax tree of Jsonnet: its nodes, walks over them, and a check of names.

`at` is the offset in the source at which a node begins.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from segrelay.jsonnet.syntax.tokens import SyntaxWrong, refuse_twice


@dataclass(frozen=True, slots=True)
class Node:
    """An expression.

    Args:
        at: The offset in the source.
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
        name: The expression of the name; a constant where it is not computed.
        visibility: The one to three colons behind the name.
        adds: True if it was written with `+:`.
        value: The expression of the value; a function where it was written as a method.
        is_computed: True if the name was written in brackets: it may be null, and sees no `self`.
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
        path: The path that was written.
        end: The offset behind the path's string.
    """

    word: Literal["import", "importstr"]
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


VariableNames = frozenset[str]
Scoped = tuple[Node, VariableNames, bool]
"""A child node, the names that its parent binds for it, and whether the parent is its object."""

_NONE: Final[VariableNames] = frozenset()


def check(node: Node) -> None:
    """Refuse variables that nobody defines, and `self`, `super` and `$` outside of objects.

    Raises:
        SyntaxWrong: There is one.
    """
    with room():
        _check(node, frozenset({"std"}), in_object=False)


def _check(node: Node, known: VariableNames, *, in_object: bool) -> None:
    match node:
        case Name(at, name) if name not in known:
            raise SyntaxWrong(f"unknown variable: {name}", at)
        case Self(at) if not in_object:
            raise SyntaxWrong("self is only known inside an object", at)
        case Dollar(at) if not in_object:
            raise SyntaxWrong("$ is only known inside an object", at)
        case SuperIndex() | InSuper() if not in_object:
            raise SyntaxWrong("super is only known inside an object", node.at)
        case Local(_, binds):
            refuse_twice([(bind.name, bind.at) for bind in binds], "variable")
    for child, bound, is_object in children(node):
        _check(child, known | bound if bound else known, in_object=in_object or is_object)


def children(node: Node) -> Iterator[Scoped]:
    """Yield the expressions of which a node consists."""
    match node:
        case ArrayOf(_, item, specs):
            bound = yield from _specs(specs)
            yield item, bound, False
        case Object():
            yield from _object(node)
        case ObjectOf(_, field, binds, specs):
            bound = yield from _specs(specs)
            yield field.name, bound, False
            names = bound | {bind.name for bind in binds}
            yield from ((bind.value, names, True) for bind in binds)
            yield field.value, names, True
        case Function(_, parameters, body):
            bound = frozenset(parameter.name for parameter in parameters)
            yield from ((p.default, bound, False) for p in parameters if p.default)
            yield body, bound, False
        case Local(_, binds, body):
            bound = frozenset(bind.name for bind in binds)
            yield from ((bind.value, bound, False) for bind in binds)
            yield body, bound, False
        case _:  # it binds no names
            values = [getattr(node, name) for name in node.__match_args__]
            yield from ((part, _NONE, False) for part in _within(values))


def _within(values: Iterable[Any]) -> Iterator[Node]:
    for value in values:
        match value:
            case Node():
                yield value
            case tuple():
                yield from _within(value)
            case Check(_, condition, message):
                yield from _within((condition, message))


def _object(node: Object) -> Iterator[Scoped]:
    names = frozenset(bind.name for bind in node.binds)
    for field in node.fields:
        yield field.name, _NONE, False
        yield field.value, names, True
    for bind in node.binds:
        yield bind.value, names, True
    for check_ in node.checks:
        yield from _parts(check_, names, is_object=True)


def _parts(check_: Check, names: VariableNames, *, is_object: bool) -> Iterator[Scoped]:
    yield check_.condition, names, is_object
    if check_.message is not None:
        yield check_.message, names, is_object


def _specs(specs: Specs) -> Generator[Scoped, None, VariableNames]:
    bound = _NONE
    for spec in specs:
        match spec:
            case For(name, source):
                yield source, bound, False
                bound |= {name}
            case Only(condition):
                yield condition, bound, False
    return bound


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all expressions within it."""
    yield node
    for child, _, _ in children(node):
        yield from walk(child)


def imports(node: Node) -> list[Import]:
    """Return the imports of a file, in their order."""
    with room():
        found = [each for each in walk(node) if isinstance(each, Import)]
        return sorted(found, key=lambda each: each.at)


def natives(node: Node) -> list[int]:
    """Return the places in a file that name `std.native`."""
    with room():
        return sorted(
            each.target.at
            for each in walk(node)
            if isinstance(each, Index)
            and isinstance(each.target, Name)
            and each.target.name == "std"
            and isinstance(each.key, Constant)
            and each.key.value == "native"
        )


def has_assert(node: Node) -> bool:
    """Return whether an `assert` stands before an expression of a file."""
    with room():
        return any(isinstance(each, Assert) for each in walk(node))

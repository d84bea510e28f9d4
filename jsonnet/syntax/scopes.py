"""The children and imports of expressions, and a check for undefined names."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any, Final

from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.tokens import SyntaxWrong, refuse_twice
from segrelay.jsonnet.syntax.tree import room

VariableNames = frozenset[str]
Scoped = tuple[tree.Node, VariableNames, bool]
"""A child node, the names that its parent binds for it, and whether the parent is its object."""

_NONE: Final[VariableNames] = frozenset()


def check(node: tree.Node) -> None:
    """Refuse variables that nobody defines, and `self`, `super` and `$` outside of objects.

    Raises:
        SyntaxWrong: There is one.
    """
    with room():
        _check(node, frozenset({"std"}), in_object=False)


def _check(node: tree.Node, known: VariableNames, *, in_object: bool) -> None:
    match node:
        case tree.Name(at, name) if name not in known:
            raise SyntaxWrong(f"unknown variable: {name}", at)
        case tree.Self(at) if not in_object:
            raise SyntaxWrong("self is only known inside an object", at)
        case tree.Dollar(at) if not in_object:
            raise SyntaxWrong("$ is only known inside an object", at)
        case tree.SuperIndex() | tree.InSuper() if not in_object:
            raise SyntaxWrong("super is only known inside an object", node.at)
        case tree.Local(_, binds):
            refuse_twice([(bind.name, bind.at) for bind in binds], "variable")
    for child, bound, is_object in children(node):
        _check(child, known | bound if bound else known, in_object=in_object or is_object)


def children(node: tree.Node) -> Iterator[Scoped]:
    """Yield the expressions of which a node consists."""
    match node:
        case tree.ArrayOf(_, item, specs):
            bound = yield from _specs(specs)
            yield item, bound, False
        case tree.Object():
            yield from _object(node)
        case tree.ObjectOf(_, field, binds, specs):
            bound = yield from _specs(specs)
            yield field.name, bound, False
            names = bound | {bind.name for bind in binds}
            yield from ((bind.value, names, True) for bind in binds)
            yield field.value, names, True
        case tree.Function(_, parameters, body):
            bound = frozenset(parameter.name for parameter in parameters)
            yield from ((p.default, bound, False) for p in parameters if p.default)
            yield body, bound, False
        case tree.Local(_, binds, body):
            bound = frozenset(bind.name for bind in binds)
            yield from ((bind.value, bound, False) for bind in binds)
            yield body, bound, False
        case _:  # it binds no names
            values = [getattr(node, name) for name in node.__match_args__]
            yield from ((part, _NONE, False) for part in _within(values))


def _within(values: Iterable[Any]) -> Iterator[tree.Node]:
    for value in values:
        match value:
            case tree.Node():
                yield value
            case tuple():
                yield from _within(value)
            case tree.Check(_, condition, message):
                yield from _within((condition, message))


def _object(node: tree.Object) -> Iterator[Scoped]:
    names = frozenset(bind.name for bind in node.binds)
    for field in node.fields:
        yield field.name, _NONE, False
        yield field.value, names, True
    for bind in node.binds:
        yield bind.value, names, True
    for check_ in node.checks:
        yield from _parts(check_, names, is_object=True)


def _parts(check_: tree.Check, names: VariableNames, *, is_object: bool) -> Iterator[Scoped]:
    yield check_.condition, names, is_object
    if check_.message is not None:
        yield check_.message, names, is_object


def _specs(specs: tree.Specs) -> Generator[Scoped, None, VariableNames]:
    bound = _NONE
    for spec in specs:
        match spec:
            case tree.For(name, source):
                yield source, bound, False
                bound |= {name}
            case tree.Only(condition):
                yield condition, bound, False
    return bound


def walk(node: tree.Node) -> Iterator[tree.Node]:
    """Yield a node and all expressions within it."""
    yield node
    for child, _, _ in children(node):
        yield from walk(child)


def imports(node: tree.Node) -> list[tree.Import]:
    """Return the imports of a file, in their order."""
    with room():
        found = [each for each in walk(node) if isinstance(each, tree.Import)]
        return sorted(found, key=lambda each: each.at)


def natives(node: tree.Node) -> list[int]:
    """Return the places in a file that name `std.native`."""
    with room():
        return sorted(
            each.target.at
            for each in walk(node)
            if isinstance(each, tree.Index)
            and isinstance(each.target, tree.Name)
            and each.target.name == "std"
            and isinstance(each.key, tree.Constant)
            and each.key.value == "native"
        )


def has_assert(node: tree.Node) -> bool:
    """Return whether an `assert` stands before an expression of a file."""
    with room():
        return any(isinstance(each, tree.Assert) for each in walk(node))

"""The children, free variables and imports of expressions, and a check for undefined names."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final

from worker.jsonnet.syntax import tree
from worker.jsonnet.syntax.cursor import SyntaxWrong, refuse_twice
from worker.jsonnet.syntax.room import room

VariableNames = frozenset[str]
Scoped = tuple[tree.Node, VariableNames, bool]
"""A child, the names that its parent binds for it, and whether the parent is its object."""

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
        case tree.Array(_, items):
            yield from ((item, _NONE, False) for item in items)
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
        case tree.Index(_, target, key):
            yield target, _NONE, False
            yield key, _NONE, False
        case tree.SuperIndex(_, key) | tree.InSuper(_, key):
            yield key, _NONE, False
        case tree.Slice(_, target, start, end, step):
            yield from ((part, _NONE, False) for part in (target, start, end, step) if part)
        case tree.Call(_, target, arguments, named):
            yield target, _NONE, False
            yield from ((argument, _NONE, False) for argument in arguments)
            yield from ((argument, _NONE, False) for _, argument in named)
        case tree.Function(_, parameters, body):
            bound = frozenset(parameter.name for parameter in parameters)
            yield from ((p.default, bound, False) for p in parameters if p.default)
            yield body, bound, False
        case tree.Local(_, binds, body):
            bound = frozenset(bind.name for bind in binds)
            yield from ((bind.value, bound, False) for bind in binds)
            yield body, bound, False
        case tree.If(_, condition, yes, no):
            yield from ((part, _NONE, False) for part in (condition, yes, no) if part)
        case tree.Unary(_, _, operand):
            yield operand, _NONE, False
        case tree.Binary(_, _, left, right):
            yield left, _NONE, False
            yield right, _NONE, False
        case tree.Assert(_, check_, body):
            yield from _parts(check_, _NONE, is_object=False)
            yield body, _NONE, False
        case tree.Error(_, message):
            yield message, _NONE, False


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


def free(node: tree.Node) -> VariableNames:
    """Return the variables that an expression takes from around it."""
    if isinstance(node, tree.Name):
        return frozenset({node.name})
    found = _NONE
    for child, bound, _ in children(node):
        found |= free(child) - bound
    return found


def imports(node: tree.Node) -> list[tree.Import]:
    """Return the imports of a file, in their order."""
    with room():
        return sorted(_imports(node), key=lambda each: each.at)


def _imports(node: tree.Node) -> Iterator[tree.Import]:
    if isinstance(node, tree.Import):
        yield node
    for child, _, _ in children(node):
        yield from _imports(child)


def has_assert(node: tree.Node) -> bool:
    """Return whether an `assert` stands before an expression of a file."""
    with room():
        return _has_assert(node)


def _has_assert(node: tree.Node) -> bool:
    if isinstance(node, tree.Assert):
        return True
    return any(_has_assert(child) for child, _, _ in children(node))

"""Finds calls of the shipped libraries that can't be right: unknown members, wrong arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Final

from ops.templates.checking.fields import tree_of
from ops.templates.library import LIBRARIES, members
from worker.checks.finding import Finding
from worker.jsonnet.files import Bundle, SourceFile, shown
from worker.jsonnet.syntax import tree
from worker.jsonnet.syntax.room import room
from worker.jsonnet.syntax.scopes import children
from worker.jsonnet.syntax.tokens import place

_LIB: Final = "lib/"
_INSIDER: Final = "insider.libsonnet"
_VALUES: Final = "values.libsonnet"
_NO_FIELD: Final = frozenset({"eventName", "omitEmpty"})
"""Functions of insider.libsonnet that take a value; the others take the name of a field."""

_Known = Mapping[str, str]
"""The names of libraries by the variables that hold them."""


@cache
def _members() -> dict[str, tuple[str, ...]]:
    return {one.imports: tuple(each.name for each in members(one)) for one in LIBRARIES}


def wrong_calls(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for each unknown member or wrong argument of a shipped library."""
    for file in bundle.files.values():
        if not file.is_code or shown(file.name).startswith(_LIB):
            continue
        root = tree_of(file)
        if root is not None:
            with room():
                yield from list(_walked(root, {}, file))


def _walked(node: tree.Node, known: _Known, file: SourceFile) -> Iterator[Finding]:
    yield from _member(node, known, file)
    yield from _value_for_a_name(node, known, file)
    own = _bound_here(node, known, file)
    for child, bound, _ in children(node):
        inner = {name: library for name, library in known.items() if name not in bound}
        inner |= {name: library for name, library in own.items() if name in bound}
        yield from _walked(child, inner, file)


def _bound_here(node: tree.Node, known: _Known, file: SourceFile) -> dict[str, str]:
    binds = node.binds if isinstance(node, tree.Local | tree.Object) else ()
    found = {bind.name: _library(bind.value, known, file) for bind in binds}
    return {name: library for name, library in found.items() if library}


def _library(node: tree.Node, known: _Known, file: SourceFile) -> str:
    """Return the name of the shipped library that an expression stands for; "" = none."""
    match node:
        case tree.Name(name=name):
            return known.get(name, "")
        case tree.Import(word="import"):
            target = next((to for each, to in file.imports if each.at == node.at), "")
            name = shown(target).removeprefix(_LIB)
            return name if shown(target).startswith(_LIB) and name in _members() else ""
    return ""


def _member(node: tree.Node, known: _Known, file: SourceFile) -> Iterator[Finding]:
    if not (isinstance(node, tree.Index) and isinstance(node.key, tree.Constant)):
        return
    library, name = _library(node.target, known, file), str(node.key.value)
    if not library or name in _members()[library]:
        return
    near = next(iter(get_close_matches(name, _members()[library], 1)), "")
    hint = f"did you mean {near}?" if near else f"it has {', '.join(_members()[library])}."
    yield _finding(f"{library} has no {name}; {hint}", node.key.at, file)


def _value_for_a_name(node: tree.Node, known: _Known, file: SourceFile) -> Iterator[Finding]:
    match node:
        case tree.Call(
            target=tree.Index(target=target, key=tree.Constant(value=str(name))),
            arguments=(tree.Call(arguments=(tree.Constant(value=str(field)), *_)) as given, *_),
        ) if (
            _library(target, known, file) == _INSIDER
            and name in _members()[_VALUES]
            and name not in _NO_FIELD
            and _gets_a_field(given, known, file)
        ):
            said = (
                f"{name} of {_INSIDER} takes the name of a field, not its value; write"
                f' {name}("{field}"), or take {name} of {_VALUES}.'
            )
            yield _finding(said, _start(given), file)


def _gets_a_field(node: tree.Call, known: _Known, file: SourceFile) -> bool:
    match node.target:
        case tree.Index(target=source, key=tree.Constant(value="get")):
            return bool(_library(source, known, file))
    return False


def _start(node: tree.Node) -> int:
    while isinstance(node, tree.Call | tree.Index):
        node = node.target
    return node.at


def _finding(message: str, at: int, file: SourceFile) -> Finding:
    line, column = place(file.text, at)
    return Finding("error", message, "", shown(file.name), line, column)

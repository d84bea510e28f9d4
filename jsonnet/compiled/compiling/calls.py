"""Compilation of calls: of the library, of `std`, of known functions and of other values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from segrelay.jsonnet.compiled.compiling.emitter import (
    Code,
    ExpressionCompiler,
    KnownFunction,
    Library,
    Placed,
    Scope,
    Standard,
    left_to_jsonnet,
    literal,
    refuse,
    tupled,
)
from segrelay.jsonnet.compiled.compiling.literals import array_of
from segrelay.jsonnet.compiled.running.natives import Native
from segrelay.jsonnet.compiled.running.standard import NATIVES
from segrelay.jsonnet.syntax import tree

_LOOK_UPS: Final = {"row": "get", "settings": "conf"}
"""The mappings of which functions look up a field, with the variable for their `get`."""


def called(compiles: ExpressionCompiler, node: tree.Call, scope: Scope) -> Code:
    """Return the code of a call."""
    if node.is_strict:
        _refuse_loop(compiles, node, scope)
    match compiles.static(node.target, scope):
        case Library(name) if name:
            return _library(compiles, name, node, scope)
        case Standard(name) if name:
            return _standard(compiles, name, node, scope)
        case KnownFunction() as known:
            return _known(compiles, known, node, scope)
    compiles.emitter.calls += 1
    target = compiles.value(node.target, scope)
    given = _given(compiles, node)
    handles = tupled(given(each, scope).text for each in node.arguments)
    if not node.named:
        return Code(f"call({target.text}, {handles})")
    named = ", ".join(f"{n!r}: {given(v, scope).text}" for n, v in node.named)
    return Code(f"call({target.text}, {handles}, {{{named}}})")


def _given(compiles: ExpressionCompiler, node: tree.Call) -> Callable[[tree.Node, Scope], Code]:
    """Return the compiling method for a call's arguments: a strict call evaluates them first."""
    return compiles.value if node.is_strict else compiles.handle


def _refuse_loop(compiles: ExpressionCompiler, node: tree.Call, scope: Scope) -> None:
    """Refuse a strict call within a function: an engine makes a loop of it, without limit of depth.

    A call of `std` or of the library comes back before its caller, unless it looks a default up.
    """
    match compiles.static(node.target, scope):
        case Standard(name) if name:
            return
        case Library(name) if name and compiles.functions[name].inline not in _LOOK_UPS:
            return
    if scope.repeats or isinstance(compiles.static(node.target, scope), Library):
        refuse("tailstrict within a function, or of a look-up", scope, node.at)


def looked_up(compiles: ExpressionCompiler, node: tree.Node, scope: Scope) -> Code | None:
    """Return code that gives a field as the profile or the settings have it, untouched.

    Only for a call that looks up a constant field with a constant default; else None.
    """
    if not isinstance(node, tree.Call) or node.is_strict:
        return None
    match compiles.static(node.target, scope):
        case Library(name) if name and compiles.functions[name].inline in _LOOK_UPS:
            entry = compiles.functions[name]
        case _:
            return None
    nodes = _arranged(node, entry.names)
    if nodes is None or nodes[0] is None:
        return None
    named = placed(nodes[0], scope)
    if not isinstance(named, tree.Constant):
        return None
    field = named.value
    if not isinstance(field, str) or not isinstance(nodes[1], tree.Constant | tree.Number | None):
        return None
    default = "None" if nodes[1] is None else compiles.value(nodes[1], scope).text
    return Code(f"{_LOOK_UPS[entry.inline]}({field!r}, {default})", total=True)


def placed(node: tree.Node, scope: Scope) -> tree.Node:
    """Return the expression that stands in the place of a variable."""
    while isinstance(node, tree.Name) and isinstance(known := scope.names.get(node.name), Placed):
        node, scope = known.node, known.scope
    return node


def _arranged(
    node: tree.Call, names: Sequence[str], required: int = 1
) -> list[tree.Node | None] | None:
    """Return an argument for each parameter; None if the call does not fit."""
    if len(node.arguments) > len(names):
        return None
    nodes: list[tree.Node | None] = [*node.arguments]
    nodes += [None] * (len(names) - len(nodes))
    for name, value in node.named:
        if name not in names or nodes[names.index(name)] is not None:
            return None
        nodes[names.index(name)] = value
    return None if any(each is None for each in nodes[:required]) else nodes


_MISSING: Final = Code("MISSING")
_DOUBTFUL: Final = Code(left_to_jsonnet("a call with arguments that the function does not take"))
"""The code of a call that Jsonnet refuses when it evaluates the call."""


def _library(compiles: ExpressionCompiler, name: str, node: tree.Call, scope: Scope) -> Code:
    entry = compiles.functions[name]
    nodes = _arranged(node, entry.names, entry.required)
    if nodes is None:
        return _DOUBTFUL
    if entry.inline in _LOOK_UPS:
        return _field(compiles, entry.inline, nodes, scope)
    if entry.inline == "in row" and nodes[1] is None and nodes[0] is not None:
        field = compiles.value(nodes[0], scope)
        is_name = field.kind == "string"
        text = field.text if is_name else f"string({field.text})"
        return Code(f"({text} in row)", "bool", total=field.total and is_name)
    given = _given(compiles, node)
    handles = [_MISSING if each is None else given(each, scope) for each in nodes]
    run = f"lib_{name}({', '.join(['row', 'settings', *(handle.text for handle in handles)])})"
    return Code(run, entry.gives, total=not nodes)


def _field(
    compiles: ExpressionCompiler, fields: str, nodes: Sequence[tree.Node | None], scope: Scope
) -> Code:
    assert nodes[0] is not None
    field = compiles.value(nodes[0], scope)
    default = literal(None) if nodes[1] is None else compiles.value(nodes[1], scope)
    key = compiles.emitter.fresh("v")
    given = field.text if field.kind == "string" else f"string({field.text})"
    text = f"(take({fields}[{key}]) if ({key} := {given}) in {fields} else {default.text})"
    total = field.kind == "string" and field.total and default.total
    return Code(text, total=total)


def _standard(compiles: ExpressionCompiler, name: str, node: tree.Call, scope: Scope) -> Code:
    native = NATIVES.get(name)
    if native is None:
        return Code(left_to_jsonnet(f"std.{name}"))
    nodes = _arranged(node, native.names, native.required)
    if nodes is None:
        return _DOUBTFUL
    while nodes and nodes[-1] is None:
        nodes.pop()
    codes = []
    for at, each in enumerate(nodes):
        if each is None:
            return Code(left_to_jsonnet(f"std.{name} with an argument left out"))
        is_lazy = at in native.lazy and not node.is_strict
        codes.append(_argument(compiles, each, scope, native, is_lazy=is_lazy))
    compiles.emitter.calls += native.calls
    if name == "isString" and len(codes) == 1:
        return Code(f"(({codes[0].text}).__class__ is str)", "bool", total=codes[0].total)
    if name == "isNumber" and len(codes) == 1 and codes[0].text.isidentifier():
        kind = f"{codes[0].text}.__class__"
        return Code(f"({kind} is int or {kind} is float)", "bool", total=codes[0].total)
    text = f"std_{name}({', '.join(code.text for code in codes)})"
    is_question = name.startswith("is") and len(codes) == 1 and codes[0].total
    total = is_question and name in _QUESTIONS
    return Code(text, native.gives, total=total)


def standard_value(compiles: ExpressionCompiler, name: str, scope: Scope, at: int) -> Code:
    """Return the code of a function or constant of `std` that is not called."""
    if name == "pi":
        return literal(math.pi)
    if name in NATIVES:
        compiles.emitter.calls += NATIVES[name].calls
        return Code(f"val_{name}", "function", total=True)
    if name:
        return Code(left_to_jsonnet(f"std.{name}"))
    return refuse("std as a value", scope, at)


def _argument(
    compiles: ExpressionCompiler, node: tree.Node, scope: Scope, native: Native, *, is_lazy: bool
) -> Code:
    """Return the code of an argument for a function of `std`.

    Where all elements of a comprehension are looked at they are made at once, if none calls what
    might not end: it might also not be looked at, behind one that decides.
    """
    if is_lazy:
        return compiles.handle(node, scope)
    if native.looks_at_all and isinstance(node, tree.ArrayOf):
        item, calls = node.item, compiles.emitter.calls
        code = array_of(compiles, node, scope, lambda inner: compiles.value(item, inner))
        if compiles.emitter.calls == calls:
            return code
    return compiles.value(node, scope)


_QUESTIONS: Final = frozenset(
    {"isString", "isNumber", "isBoolean", "isObject", "isArray", "isFunction", "isNull"}
)
"""Functions that accept arguments of every kind."""


def _known(
    compiles: ExpressionCompiler, known: KnownFunction, node: tree.Call, scope: Scope
) -> Code:
    names = [parameter.name for parameter in known.parameters]
    nodes = _arranged(node, names, 0)
    if nodes is None:
        return _DOUBTFUL
    written = _written_out(compiles, known, nodes, scope)
    if written is not None:
        return written
    compiles.emitter.calls += 1
    given: list[str] = []
    for parameter, is_strict, each in zip(known.parameters, known.strict, nodes, strict=True):
        if each is None and parameter.default is None:
            return _DOUBTFUL
        if each is None:
            given.append("MISSING")
        else:
            is_looked_at = is_strict or node.is_strict
            code = compiles.value(each, scope) if is_looked_at else compiles.handle(each, scope)
            given.append(code.text)
    return Code(f"{known.name}({', '.join(given)})")


_WRITTEN_OUT: Final = 400
"""The most characters of a function's code that are written out in the place of a call."""


def _written_out(
    compiles: ExpressionCompiler,
    known: KnownFunction,
    nodes: Sequence[tree.Node | None],
    scope: Scope,
) -> Code | None:
    """Return the body of a function that is called with constants; None if it has to be called.

    A constant may stand wherever its parameter does: it costs nothing and can't fail.
    """
    emitter = compiles.emitter
    body = emitter.bodies.get(known.name)
    is_simple = all(isinstance(each, tree.Constant) for each in nodes)
    if body is None or not is_simple or scope.repeats or known.name in emitter.open:
        return None
    constants = {
        parameter.name: Placed(each, scope)
        for parameter, each in zip(known.parameters, nodes, strict=True)
        if each is not None
    }
    before = emitter.calls
    emitter.open.add(known.name)
    code = compiles.value(body.node, body.scope.having(constants))
    emitter.open.discard(known.name)
    if len(code.text) <= _WRITTEN_OUT:
        return code
    emitter.calls = before
    return None

"""Compilation of comprehensions: each `for` calls a function, so elements have their own names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from worker.jsonnet.compiled.compiling.binds import bound, in_front
from worker.jsonnet.compiled.compiling.code import Code, Scope
from worker.jsonnet.compiled.compiling.emitter import ExpressionCompiler, parameter
from worker.jsonnet.syntax import tree

ItemCode = Callable[[Scope], Code]
"""Gives the code of one element of the result."""


def array_of(
    compiles: ExpressionCompiler, node: tree.ArrayOf, scope: Scope, item: ItemCode
) -> Code:
    """Return the code of an array comprehension; `item` gives the code of one element."""
    code = _nested(compiles, node.specs, scope, item)
    return Code(code.text, "array")


def object_of(
    compiles: ExpressionCompiler,
    node: tree.ObjectOf,
    scope: Scope,
    value: Callable[[tree.Node, Scope], str],
) -> str | None:
    """Return the code of an object comprehension as a `dict`; None if it refers to itself."""
    literal = tree.Object(node.at, (node.field,), node.binds, ())
    if compiles.analysis.refers_to_object(literal, dollar=not scope.outermost):
        return None

    def pair(inner: Scope) -> Code:
        name = compiles.value(node.field.name, inner).text
        assigned, body = bound(compiles, node.binds, inner, [(node.field.value, False)])
        return Code(f"({name}, lambda: {in_front(assigned, value(node.field.value, body))})")

    return f"joined({{}}, {_nested(compiles, node.specs, scope, pair).text})"


def comprehended(compiles: ExpressionCompiler, node: tree.ObjectOf, scope: Scope) -> str:
    """Return the code of an object comprehension, without evaluating its fields."""
    made = object_of(compiles, node, scope, lambda each, to: compiles.handle(each, to).text)
    if made is not None:
        return made
    this, base = compiles.emitter.fresh("s"), compiles.emitter.fresh("b")

    def pair(inner: Scope) -> Code:
        name = compiles.value(node.field.name, inner).text
        inner = replace(inner, this=this, base=base, outermost=inner.outermost or this)
        assigned, body = bound(compiles, node.binds, inner, [(node.field.value, False)] * 2)
        value = in_front(assigned, compiles.handle(node.field.value, body).text)
        return Code(f"({name}, lambda {this}, {base}: {value})")

    return f"composed({_nested(compiles, node.specs, scope, pair).text})"


def _nested(
    compiles: ExpressionCompiler,
    specs: Sequence[tree.For | tree.Only],
    scope: Scope,
    item: ItemCode,
) -> Code:
    spec, rest = specs[0], specs[1:]
    assert isinstance(spec, tree.For)
    source = compiles.value(spec.source, scope).text
    name = compiles.emitter.fresh("i")
    scope = scope.having({spec.name: parameter(name)})
    if not rest:
        return Code(f"each({source}, lambda {name}: {item(scope).text})")
    return Code(f"over({source}, lambda {name}: {_chosen(compiles, rest, scope, item)})")


def _chosen(
    compiles: ExpressionCompiler,
    specs: Sequence[tree.For | tree.Only],
    scope: Scope,
    item: ItemCode,
) -> str:
    """Return the code of a comprehension's elements, behind the conditions that come first."""
    if not specs:
        return f"({item(scope).text},)"
    spec = specs[0]
    if isinstance(spec, tree.For):
        return _nested(compiles, specs, scope, item).text
    condition = compiles.truth(spec.condition, scope).text
    return f"({_chosen(compiles, specs[1:], scope, item)} if {condition} else ())"

"""Compilation of literals: an object is a `dict` unless it refers to itself, else a `Composite`.

Compilation of comprehensions: each `for` calls a function, so elements have their own names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from segrelay.jsonnet.compiled.compiling.binds import bound, in_front
from segrelay.jsonnet.compiled.compiling.emitter import (
    Code,
    ExpressionCompiler,
    Scope,
    left_to_jsonnet,
    parameter,
    tupled,
)
from segrelay.jsonnet.compiled.running.limits import FAILED
from segrelay.jsonnet.syntax import tree


def literal_array(compiles: ExpressionCompiler, items: Sequence[tree.Node], scope: Scope) -> Code:
    """Return the code of an array literal."""
    handles = [compiles.handle(item, scope) for item in items]
    text = f"[{', '.join(handle.text for handle in handles)}]"
    if all(handle.constant for handle in handles):
        return Code(compiles.emitter.hoisted(text), "array", total=True, constant=True)
    return Code(text, "array", total=True)


def literal_object(compiles: ExpressionCompiler, node: tree.Object, scope: Scope) -> Code:
    """Return the code of an object literal."""
    if node.checks or not is_plain(compiles, node, scope):
        return Code(_composite(compiles, node, scope), "object")
    assigned, inner = bound(compiles, node.binds, scope, _users(node, deep=False))
    handles = [compiles.handle(field.value, inner) for field in node.fields]
    names = [compiles.value(field.name, scope) for field in node.fields]
    codes = handles + names
    text = _plain(node, names, [handle.text for handle in handles])
    if all(code.constant for code in codes) and not assigned:
        return Code(compiles.emitter.hoisted(text), "object", total=True, constant=True)
    is_sure = not assigned and not any(field.is_computed for field in node.fields)
    return Code(in_front(assigned, text), "object", total=is_sure)


def deep_object(compiles: ExpressionCompiler, node: tree.Object, scope: Scope) -> str | None:
    """Return the code of an object's JSON value; None where a `dict` is not enough for it."""
    if not is_plain(compiles, node, scope):
        return None
    assigned, inner = bound(compiles, node.binds, scope, _users(node, deep=True))
    values = [compiles.deep(field.value, inner) for field in node.fields]
    names = [compiles.value(field.name, scope) for field in node.fields]
    text = _plain(node, names, values)
    if node.checks:
        text = f"({text} if {_checks(compiles, node, inner)} else {left_to_jsonnet(FAILED)})"
    return in_front(assigned, text)


def is_plain(compiles: ExpressionCompiler, node: tree.Object, scope: Scope) -> bool:
    """Return whether a `dict` is enough for an object."""
    return all(field.visibility == ":" and not field.adds for field in node.fields) and (
        not compiles.analysis.refers_to_object(node, dollar=not scope.outermost)
    )


def _users(node: tree.Object, *, deep: bool) -> list[tuple[tree.Node, bool]]:
    checks = [(check.condition, False) for check in node.checks]
    return [*((field.value, deep and not field.is_computed) for field in node.fields), *checks]


def _checks(compiles: ExpressionCompiler, node: tree.Object, scope: Scope) -> str:
    """Return code that says whether all asserts of an object hold."""
    return " and ".join(compiles.truth(check.condition, scope).text for check in node.checks)


def _plain(node: tree.Object, names: Sequence[Code], values: Sequence[str]) -> str:
    written: list[tuple[str, str]] = []
    computed: list[str] = []
    for field, name, value in zip(node.fields, names, values, strict=True):
        if field.is_computed:
            computed.append(f"({name.text}, lambda: {value})")
        else:
            written.append((_name_of(field), f"{name.text}: {value}"))
    made = "{" + ", ".join(text for _, text in sorted(written)) + "}"
    return f"joined({made}, {tupled(computed)})" if computed else made


def _name_of(field: tree.Field) -> str:
    assert isinstance(field.name, tree.Constant)
    return str(field.name.value)


def _composite(compiles: ExpressionCompiler, node: tree.Object, scope: Scope) -> str:
    emitter = compiles.emitter
    this, base = emitter.fresh("s"), emitter.fresh("b")
    inner = replace(scope, this=this, base=base, outermost=scope.outermost or this)
    written = [field for field in node.fields if not field.is_computed]
    computed = [field for field in node.fields if field.is_computed]
    # Fields are evaluated later, each by itself: a local of the object is used by many.
    users = _users(node, deep=False) * 2
    assigned, inner = bound(compiles, node.binds, inner, users)
    named = [(field, emitter.fresh("v")) for field in computed]
    handles = [_field(compiles, field, inner, repr(_name_of(field))) for field in written]
    handles += [_field(compiles, field, inner, variable) for field, variable in named]
    names = emitter.hoisted(repr({_name_of(f): (at, f.visibility) for at, f in enumerate(written)}))
    if computed:
        names = f"layer_names({names}, {_computed_names(compiles, named, scope)})"
    checked = ""
    if node.checks:
        holds = _checks(compiles, node, inner)
        handles.append(f"Lazy(lambda: {holds} or {left_to_jsonnet(FAILED)})")
        checked = ", True"
    make = f"lambda {this}, {base}: {in_front(assigned, tupled(handles))}"
    return f"Composite((Layer({names}, {make}{checked}),))"


def _computed_names(
    compiles: ExpressionCompiler, named: Sequence[tuple[tree.Field, str]], scope: Scope
) -> str:
    """Return the code of computed field names, each evaluated once and kept in a variable."""
    return tupled(
        f"(({variable} := {compiles.value(field.name, scope).text}), {field.visibility!r})"
        for field, variable in named
    )


def _field(compiles: ExpressionCompiler, field: tree.Field, scope: Scope, name: str) -> str:
    """Return the code of a field's value; `name` is the code of its name."""
    if not field.adds:
        return compiles.handle(field.value, scope).text
    value = compiles.value(field.value, scope).text
    return f"Lazy(lambda: add_to_base({scope.base}, {name}, lambda: {value}))"


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

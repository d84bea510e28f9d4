"""Compilation of locals: evaluated at once, evaluated lazily, or inlined at their only use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from segrelay.jsonnet.compiled.compiling.analysis import MANY
from segrelay.jsonnet.compiled.compiling.emitter import (
    Binding,
    Code,
    ExpressionCompiler,
    KnownFunction,
    Module,
    Placed,
    Scope,
    Variable,
)
from segrelay.jsonnet.syntax import tree

Users = Sequence[tuple[tree.Node, bool]]
"""Expressions that may use a variable, each with whether it is surely evaluated."""


def bound(
    compiles: ExpressionCompiler,
    binds: Sequence[tree.Bind],
    scope: Scope,
    users: Users,
    *,
    deep: bool = True,
) -> tuple[list[str], Scope]:
    """Return the assignments for a group of locals, and the scope behind them.

    Args:
        compiles: The compiler of expressions.
        binds: The locals.
        scope: The names that are known in front of the locals.
        users: The expressions that may use the locals.
        deep: True if the users are evaluated to whole JSON values, with all that they contain.
    """
    functions = [bind for bind in binds if isinstance(bind.value, tree.Function)]
    others = [bind for bind in binds if not isinstance(bind.value, tree.Function)]
    scope = scope.having({bind.name: known_function(compiles, bind.value) for bind in functions})
    assigned: list[str] = []
    if _in_order(compiles, functions, others):
        for number, bind in enumerate(others):
            rest = [(each.value, False) for each in [*others[number + 1 :], *functions]]
            made, binding = variable(compiles, bind, scope, [*users, *rest], deep=deep)
            assigned += made
            scope = scope.having({bind.name: binding})
    else:
        assigned, scope = _knot(compiles, others, scope)
    # Functions come first: nothing in them is evaluated before they are called.
    return [define(compiles, bind, scope) for bind in functions] + assigned, scope


def known_function(compiles: ExpressionCompiler, node: tree.Node) -> KnownFunction:
    """Return the name, the parameters and the value of a function before it is compiled."""
    assert isinstance(node, tree.Function)
    name = compiles.emitter.fresh("f")
    value = f"Func({name}, {_signature(compiles, node.parameters)})"
    strict = tuple(
        compiles.analysis.surely_uses(node.body, each.name, deep=False) for each in node.parameters
    )
    return KnownFunction(name, node.parameters, strict, value)


def define(compiles: ExpressionCompiler, bind: tree.Bind, scope: Scope) -> str:
    """Return the code that defines a known function."""
    known = scope.names[bind.name]
    assert isinstance(known, KnownFunction)
    assert isinstance(bind.value, tree.Function)
    compiles.emitter.bodies[known.name] = Placed(bind.value.body, scope)
    return f"({known.name} := {compiles.function(bind.value, scope)})"


def _signature(compiles: ExpressionCompiler, parameters: tuple[tree.Parameter, ...]) -> str:
    names = compiles.emitter.hoisted(repr(tuple(each.name for each in parameters)))
    required = compiles.emitter.hoisted(repr(tuple(each.default is None for each in parameters)))
    return f"{names}, {required}"


def function_value(compiles: ExpressionCompiler, node: tree.Function, scope: Scope) -> str:
    """Return the code of a function as a value."""
    return f"Func({compiles.function(node, scope)}, {_signature(compiles, node.parameters)})"


def _in_order(
    compiles: ExpressionCompiler, functions: Sequence[tree.Bind], others: Sequence[tree.Bind]
) -> bool:
    """Return whether each local uses only those before it, and no function that uses a local."""
    names = {bind.name for bind in others}
    free = compiles.analysis.free
    tied = (
        {bind.name for bind in functions} if any(free(f.value) & names for f in functions) else ()
    )
    seen: set[str] = set()
    for bind in others:
        used = free(bind.value)
        if not used.isdisjoint(names - seen) or not used.isdisjoint(tied):
            return False
        seen.add(bind.name)
    return True


def variable(
    compiles: ExpressionCompiler, bind: tree.Bind, scope: Scope, users: Users, *, deep: bool
) -> tuple[list[str], Binding]:
    """Return the assignments for a local that uses only known names, and its binding."""
    static = compiles.static(bind.value, scope)
    if static is not None:
        return [], static
    if isinstance(bind.value, tree.Name):
        return [], scope.names[bind.value.name]
    count = sum(compiles.analysis.uses(node, bind.name) for node, _ in users)
    if count and all(_only_asked(compiles, node, bind.name) for node, _ in users):
        module = compiles.module(bind.value, scope)
        if module is not None:
            return module
    if count < MANY:
        return [], Placed(bind.value, scope)
    code = compiles.value(bind.value, scope)
    if code.constant:
        name = code.text if code.text.isidentifier() else compiles.emitter.hoisted(code.text)
        return [], Variable(Code(name, code.kind, total=True), name)
    surely = compiles.analysis.surely_uses
    if code.total or any(is_sure and surely(node, bind.name, deep=deep) for node, is_sure in users):
        name = compiles.emitter.fresh("x")
        return [f"({name} := {code.text})"], Variable(Code(name, code.kind, total=True), name)
    name = compiles.emitter.fresh("z")
    later = Variable(Code(f"{name}.get()", code.kind), name)
    return [f"({name} := Lazy(lambda: {code.text}))"], later


def _only_asked(compiles: ExpressionCompiler, node: tree.Node, name: str) -> bool:
    """Return whether an expression uses a variable only to look up fields by constant names."""
    match node:
        case tree.Name(_, own):
            return own != name
        case tree.Index(_, tree.Name(_, own), tree.Constant(_, str())) if own == name:
            return True
    if name not in compiles.analysis.free(node):
        return True
    return all(
        name in inner or _only_asked(compiles, child, name)
        for child, inner, _ in compiles.analysis.children(node)
    )


def as_module(
    compiles: ExpressionCompiler, node: tree.Node, scope: Scope
) -> tuple[list[str], Module] | None:
    """Return an object's fields as variables; None where they are not all written out."""
    groups: list[Sequence[tree.Bind]] = []
    inner = node
    while isinstance(inner, tree.Local):
        groups.append(inner.binds)
        inner = inner.body
    if not isinstance(inner, tree.Object) or not _is_modular(compiles, inner):
        return None
    assigned: list[str] = []
    for number, binds in enumerate(groups):
        later = [(bind.value, False) for group in groups[number + 1 :] for bind in group]
        made, scope = bound(compiles, binds, scope, [*[(inner, False)] * MANY, *later])
        assigned += made
    made, scope = bound(compiles, inner.binds, scope, [(f.value, False) for f in inner.fields] * 2)
    assigned += made
    fields: dict[str, Binding] = {}
    for field in inner.fields:
        assert isinstance(field.name, tree.Constant)
        made, fields[str(field.name.value)] = _field(compiles, field, scope)
        assigned += made
    return assigned, Module(fields)


def _is_modular(compiles: ExpressionCompiler, node: tree.Object) -> bool:
    is_written_out = not any(field.is_computed or field.adds for field in node.fields)
    return is_written_out and not node.checks and not compiles.analysis.refers_to_object(node)


def _field(
    compiles: ExpressionCompiler, field: tree.Field, scope: Scope
) -> tuple[list[str], Binding]:
    if isinstance(field.value, tree.Function):
        known = known_function(compiles, field.value)
        compiles.emitter.bodies[known.name] = Placed(field.value.body, scope)
        return [f"({known.name} := {compiles.function(field.value, scope)})"], known
    used = tree.Name(field.at, "field")
    bind = tree.Bind(field.at, "field", field.value)
    assigned, binding = variable(compiles, bind, scope, [(used, False)] * MANY, deep=False)
    if isinstance(binding, Variable) and _is_container(field.value):
        binding = replace(binding, source=Placed(field.value, scope))
    return assigned, binding


def _is_container(node: tree.Node) -> bool:
    """Say whether an expression writes out an array or an object."""
    match node:
        case tree.If(_, _, yes, no):
            return _is_container(yes) or (no is not None and _is_container(no))
        case tree.Local(_, _, body):
            return _is_container(body)
    return isinstance(node, tree.Array | tree.Object)


def _knot(
    compiles: ExpressionCompiler, binds: Sequence[tree.Bind], scope: Scope
) -> tuple[list[str], Scope]:
    """Return the code of locals that refer to each other or themselves: all evaluated lazily."""
    names = {bind.name: compiles.emitter.fresh("z") for bind in binds}
    scope = scope.having(
        {each: Variable(Code(f"{name}.get()"), name) for each, name in names.items()}
    )
    return [
        f"({names[bind.name]} := Lazy(lambda: {compiles.value(bind.value, scope).text}))"
        for bind in binds
    ], scope


def in_front(assigned: Sequence[str], text: str) -> str:
    """Return the code of an expression behind its assignments."""
    return f"({', '.join(assigned)}, {text})[-1]" if assigned else text


def local(
    compiles: ExpressionCompiler,
    node: tree.Local,
    scope: Scope,
    body: Callable[[tree.Node, Scope], Code],
    *,
    deep: bool,
) -> Code:
    """Return the code of consecutive locals and of their body."""
    assigned: list[str] = []
    inner: tree.Node = node
    while isinstance(inner, tree.Local):
        made, scope = bound(compiles, inner.binds, scope, [(inner.body, True)], deep=deep)
        assigned += made
        inner = inner.body
    code = body(inner, scope)
    return Code(in_front(assigned, code.text), code.kind) if assigned else code

"""The code of operators: calls of the functions in `operators`, or plain Python."""

from __future__ import annotations

from typing import Final

from segrelay.jsonnet.compiled.compiling.emitter import Code, ExpressionCompiler, Scope, literal
from segrelay.jsonnet.compiled.running.values import number
from segrelay.jsonnet.syntax import tree

_ARITHMETIC: Final = {"-": "minus", "*": "times", "/": "divided", "%": "remainder"}
_SIGNS: Final = {"-": "negated", "+": "numeric", "~": "inverted"}
_PLAIN: Final = frozenset({"number", "string"})
"""Kinds of values: Python orders two values of one of these kinds as Jsonnet does."""
_ORDER: Final = {
    "<": "less({left}, {right})",
    ">": "less({right}, {left})",
    "<=": "(not less({right}, {left}))",
    ">=": "(not less({left}, {right}))",
}


def operation(
    compiles: ExpressionCompiler, node: tree.Unary | tree.Binary | tree.Slice, scope: Scope
) -> Code:
    """Return the code of an operator or a slice."""
    match node:
        case tree.Unary(_, operator, operand):
            return _unary(compiles, operator, operand, scope)
        case tree.Slice(_, target, start, end, step):
            given = (target, start, end, step)
            parts = ["None" if part is None else compiles.value(part, scope).text for part in given]
            return Code(f"sliced({', '.join(parts)})")
        case tree.Binary(_, "+"):
            return _sum(compiles, node, scope)
        case tree.Binary(_, "&&" | "||" as operator, left, right):
            one, other = compiles.truth(left, scope), compiles.truth(right, scope)
            word = "and" if operator == "&&" else "or"
            return _both(f"({one.text} {word} {other.text})", "bool", one, other)
    one, other = compiles.value(node.left, scope), compiles.value(node.right, scope)
    match node.operator:
        case "-" | "*" | "/" | "%":
            kind = "any" if node.operator == "%" else "number"
            run = f"{_ARITHMETIC[node.operator]}({one.text}, {other.text})"
            return Code(run, kind)
        case "<" | ">" | "<=" | ">=" if one.kind == other.kind and one.kind in _PLAIN:
            return _both(f"({one.text} {node.operator} {other.text})", "bool", one, other)
        case "<" | ">" | "<=" | ">=":
            text = _ORDER[node.operator].format(left=one.text, right=other.text)
            return Code(text, "bool")
        case "==" | "!=":
            return _equality(one, other, negated=node.operator == "!=")
        case "in":
            run = f"has_field({one.text}, {other.text})"
            return Code(run, "bool")
    return Code(f"bitwise({node.operator!r}, {one.text}, {other.text})", "number")


def _unary(compiles: ExpressionCompiler, operator: str, operand: tree.Node, scope: Scope) -> Code:
    if operator == "!":
        test = compiles.truth(operand, scope)
        return Code(f"(not {test.text})", "bool", total=test.total)
    code = compiles.value(operand, scope)
    if isinstance(operand, tree.Number) and operator == "-":
        return literal(number(-float(operand.text)))
    run = _SIGNS[operator]
    return Code(f"{run}({code.text})", "number")


def _sum(compiles: ExpressionCompiler, node: tree.Binary, scope: Scope) -> Code:
    """Return the code of a chain of `+`: evaluated from the left, without nesting."""
    parts: list[Code] = []
    left: tree.Node = node
    while isinstance(left, tree.Binary) and left.operator == "+":
        parts.append(compiles.value(left.right, scope))
        left = left.left
    parts.append(compiles.value(left, scope))
    kind = "string" if any(part.kind == "string" for part in parts[-2:]) else "any"
    name = "plus" if len(parts) == 2 else "plus_all"  # noqa: PLR2004
    text = f"{name}({', '.join(part.text for part in reversed(parts))})"
    return Code(text, kind)


def _both(text: str, kind: str, one: Code, other: Code) -> Code:
    return Code(text, kind, total=one.total and other.total)


def _equality(one: Code, other: Code, *, negated: bool) -> Code:
    if one.constant:
        one, other = other, one
    total = one.total and other.constant
    if other.constant and other.kind == "string":
        text = f"({one.text} {'!=' if negated else '=='} {other.text})"
    elif other.constant and not one.constant and other.kind in ("null", "bool"):
        text = f"({one.text} {'is not' if negated else 'is'} {other.text})"
    elif one.kind == other.kind and one.kind in _PLAIN:
        text = f"({one.text} {'!=' if negated else '=='} {other.text})"
    else:
        text = f"{'(not ' if negated else '('}equal({one.text}, {other.text}))"
        total = False
    return Code(text, "bool", total=total)


def choice(compiles: ExpressionCompiler, node: tree.If, scope: Scope) -> Code:
    """Return the code of a condition with its branches."""
    test, one = compiles.truth(node.condition, scope), compiles.value(node.yes, scope)
    other = literal(None) if node.no is None else compiles.value(node.no, scope)
    return Code(
        f"({one.text} if {test.text} else {other.text})",
        one.kind if one.kind == other.kind else "any",
        total=one.total and test.total and other.total,
    )


def checked(compiles: ExpressionCompiler, check: tree.Check, body: Code, scope: Scope) -> Code:
    """Return code that notes an `assert` that fails, and goes on.

    Jsonnet might meet another fault first; if there is no other, the assert is what it meets.
    """
    compiles.emitter.calls += 1  # nobody evaluates it before Jsonnet would
    test = compiles.truth(check.condition, scope).text
    return Code(f"({body.text} if {test} or failing({said(compiles, check, scope)}) else None)")


def said(compiles: ExpressionCompiler, check: tree.Check, scope: Scope) -> str:
    """Return the code of the message of an `assert`; "" where it has none."""
    message = check.message
    return "" if message is None else f"string({compiles.value(message, scope).text})"

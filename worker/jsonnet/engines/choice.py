"""The choice of the engine that renders a template: the fastest one that is right about it.

rjsonnet is wrong about some of the language. What it does wrong in `std` is corrected
(`lib/std-for-rjsonnet.libsonnet`); a template that uses the rest is rendered by the reference
implementation `jsonnet`, or where that is not installed by `gojsonnet`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from worker.jsonnet.engines.judge import EngineModule, judges
from worker.jsonnet.files import Bundle
from worker.jsonnet.syntax import tree
from worker.jsonnet.syntax.room import room
from worker.jsonnet.syntax.scopes import walk
from worker.jsonnet.syntax.tokens import Token, TokenKind

_OURS: Final = "lib:/"
"""The prefix of the shipped library's files: conformance tests prove that engines agree on them."""
_FRACTION_CODE: Final = re.compile(r"%(?:\([^)]*\))?[-#0 +]*[\d*.]*[hlL]?[eEfFgG]")
"""Codes that rjsonnet gets wrong: `"%.1f" % 0.95` is 0.10 there, and `"%e" % -1` does not end."""
_CHOMPS: Final = "|||-"
_COMMENT_END: Final = "\\*/"
"""The end of a comment that is none for rjsonnet: it goes on to the next one."""
_EQUALITIES: Final = frozenset({"==", "!="})
_ARITHMETIC: Final = frozenset({"+", "-", "*", "/", "%"})
_MAKES_FRACTIONS: Final = frozenset({"-", "*", "/"})
_WHOLE_CALLS: Final = frozenset({"length", "type"})
_FIRST_EXACT: Final = 2
"""The least number that rjsonnet never confuses with another: it overlooks under 2.2e-16."""


def engine_for(bundle: Bundle) -> EngineModule:
    """Return the engine that renders a template."""
    return right_engine() if is_beyond_rjsonnet(bundle) else "rjsonnet"


def right_engine() -> EngineModule:
    """Return the engine for templates that rjsonnet gets wrong; rjsonnet if there is no other."""
    return next(iter(judges()), "rjsonnet")


def is_beyond_rjsonnet(bundle: Bundle) -> bool:
    """Say whether a template uses something that rjsonnet is known to evaluate wrongly."""
    return any(
        _COMMENT_END in file.text or _is_beyond(file.tokens, file.parsed)
        for file in bundle.files.values()
        if file.parsed is not None and not file.name.startswith(_OURS)
    )


def _is_beyond(tokens: Sequence[Token], root: tree.Node) -> bool:
    if any(
        (token.kind is TokenKind.NUMBER and "_" in token.text)
        or (token.kind is TokenKind.BLOCK and token.text.startswith(_CHOMPS))
        for token in tokens
    ):
        return True
    with room():
        nodes = list(walk(root))
    has_fractions = any(map(_makes_fractions, nodes))
    return any(_is_misread(node, has_fractions=has_fractions) for node in nodes)


def _makes_fractions(node: tree.Node) -> bool:
    match node:
        case tree.Number(_, text):
            return not text.isdigit()
        case tree.Binary(_, operator):
            return operator in _MAKES_FRACTIONS
        case _:
            return False


def _is_misread(node: tree.Node, *, has_fractions: bool) -> bool:
    match node:
        case tree.Slice(_, _, start, end):
            # It refuses bounds that count from the end.
            return not all(part is None or isinstance(part, tree.Number) for part in (start, end))
        case tree.Index(_, tree.Name(_, "std"), tree.Constant(_, "thisFile")):
            return True
        case tree.Index(_, _, tree.Unary(_, "-") | tree.Binary(_, "-")):
            # It takes -1 for 0, where the specification has an error.
            return True
        case tree.Binary(_, "%", tree.Constant(_, str(text)), _):
            return _prints_fractions(text)
        case tree.Call(
            _,
            tree.Index(_, tree.Name(_, "std"), tree.Constant(_, "format" | "mod")),
            (tree.Constant(_, str(text)), *_),
        ):
            return _prints_fractions(text)
        case tree.Binary(_, operator, left, right) if operator in _EQUALITIES:
            # It takes numbers for equal that differ by less than 2.2e-16.
            if _is_arithmetic(left) or _is_arithmetic(right):
                return not (_is_far(left) or _is_far(right))
            return has_fractions and not (_is_whole(left) or _is_whole(right))
        case _:
            return False


def _prints_fractions(text: str) -> bool:
    """Say whether a format has a code that rjsonnet rounds wrongly, or never ends on."""
    return _FRACTION_CODE.search(text) is not None


def _is_whole(node: tree.Node) -> bool:
    """Say whether an expression surely gives no fraction."""
    match node:
        case tree.Constant():
            return True
        case tree.Number(_, text):
            return text.isdigit()
        case tree.Call(_, tree.Index(_, tree.Name(_, "std"), tree.Constant(_, name))):
            return name in _WHOLE_CALLS
        case _:
            return False


def _is_far(node: tree.Node) -> bool:
    """Say whether an expression is a whole number that rjsonnet compares correctly."""
    if not _is_whole(node):
        return False
    return not isinstance(node, tree.Number) or int(node.text) >= _FIRST_EXACT


def _is_arithmetic(node: tree.Node) -> bool:
    match node:
        case tree.Binary(_, operator, left, right):
            are_numbers = not any(isinstance(each, tree.Constant) for each in (left, right))
            return operator in _ARITHMETIC and are_numbers
        case _:
            return False

"""Checks of tokens before parsing: nesting that crashes engines, and damage from a web page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from worker.jsonnet.syntax.cursor import SyntaxWrong
from worker.jsonnet.syntax.tokens import Token, TokenKind

MAX_DEPTH: Final = 200
"""The largest number of nested brackets; rjsonnet dies of some thousands."""
MAX_CHAIN: Final = 2_000
"""The largest number of tokens between two `,` or `;`. The reference engine dies of 20,000."""
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_SEPARATORS: Final = frozenset(",;")


def refuse_too_deep(found: Sequence[Token]) -> None:
    """Refuse expressions that are nested or chained beyond what the engines survive.

    Raises:
        SyntaxWrong: It names the first one.
    """
    chains = [0]
    for token in found:
        if token.text in _OPENING:
            chains.append(0)
        elif token.text in _CLOSING and len(chains) > 1:
            chains.pop()
        chains[-1] = 0 if token.text in _SEPARATORS else chains[-1] + 1
        if len(chains) - 1 > MAX_DEPTH:
            raise _too_deep(f"brackets are nested deeper than {MAX_DEPTH}", token)
        if chains[-1] > MAX_CHAIN:
            raise _too_deep(f"one expression has more than {MAX_CHAIN} parts", token)


def _too_deep(message: str, token: Token) -> SyntaxWrong:
    return SyntaxWrong(f"{message}; simplify the template", token.start)


_VALID_ESCAPES: Final = frozenset("\"'\\/bfnrtu")
_ANY_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def markdown_damage(found: Sequence[Token]) -> tuple[int, str] | None:
    r"""Return offset and text of the first escape that only Markdown makes, such as `\[` or `\_`.

    Templates copied from a page often carry them: outside a string a backslash means nothing in
    Jsonnet, and in a string only some escapes exist.
    """
    for token, after in zip(found, [*found[1:], None], strict=True):
        if token.text == "\\":
            return token.start, token.text + (after.text[:1] if after is not None else "")
        if token.kind is not TokenKind.STRING:
            continue
        for escape in _ANY_ESCAPE.finditer(token.text):
            if escape[1] not in _VALID_ESCAPES:
                return token.start + escape.start(), escape.group()
    return None

"""Limits on nesting and chaining, beyond which engines crash; checked before parsing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.jsonnet.syntax.tokens import Token

MAX_DEPTH: Final = 200
"""The largest number of nested brackets; rjsonnet dies of some thousands."""
MAX_CHAIN: Final = 2_000
"""The largest number of tokens between two `,` or `;`. The reference engine dies of 20,000."""
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_SEPARATORS: Final = frozenset(",;")


@dataclass(frozen=True, slots=True)
class TooDeep:
    """An expression that an engine might not survive."""

    offset: int
    message: str


def too_deep(found: Sequence[Token]) -> TooDeep | None:
    """Return the first expression that is nested or chained beyond what the engines survive."""
    chains = [0]
    for token in found:
        if token.text in _OPENING:
            chains.append(0)
        elif token.text in _CLOSING and len(chains) > 1:
            chains.pop()
        chains[-1] = 0 if token.text in _SEPARATORS else chains[-1] + 1
        if len(chains) - 1 > MAX_DEPTH:
            return TooDeep(token.start, f"brackets are nested deeper than {MAX_DEPTH}")
        if chains[-1] > MAX_CHAIN:
            return TooDeep(token.start, f"one expression has more than {MAX_CHAIN} parts")
    return None

"""The arguments of every call of an engine: the depth of its stack and our native functions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

MAX_STACK: Final = 500
"""The depth of an engine's stack, rjsonnet's default; at some 5,000 recursion ends the process."""

Natives = dict[str, tuple[tuple[str, ...], Callable[..., Any]]]


def sha1(text: str) -> str:
    """Return the SHA-1 of a text in hexadecimal; the library calls it."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal; the library calls it."""
    return hashlib.sha256(text.encode()).hexdigest()


HASHES: Final[Natives] = {"sha1": (("text",), sha1), "sha256": (("text",), sha256)}

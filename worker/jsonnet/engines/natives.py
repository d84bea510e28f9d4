"""What every engine is called with: how deep it may go, and the functions that we add."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

MAX_STACK: Final = 500
"""rjsonnet's own default; from some 5,000 on endless recursion is a segmentation fault."""

Natives = dict[str, tuple[tuple[str, ...], Callable[..., Any]]]


def sha1(text: str) -> str:
    """Return the hex digest: a native of the library."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def sha256(text: str) -> str:
    """Return the hex digest: a native of the library."""
    return hashlib.sha256(text.encode()).hexdigest()


HASHES: Final[Natives] = {"sha1": (("text",), sha1), "sha256": (("text",), sha256)}

"""A higher limit on recursion: trees may be nested deeper than Python allows."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

_FRAMES: Final = 20_000
"""The limit on recursion: trees are up to 2,000 nodes deep, and walking takes some frames for each.
Since Python 3.11 a call from Python to Python takes nothing from the C stack."""


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Raise the limit on recursion within the block."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)

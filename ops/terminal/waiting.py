"""Waiting for something, by looking again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_Found = TypeVar("_Found")


def awaited(look: Callable[[], _Found], seconds: float, look_every_seconds: float = 0.05) -> _Found:
    """Look until something is found or the time is up; returns what was found at last."""
    ends_at = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < ends_at:
        time.sleep(look_every_seconds)
    return found

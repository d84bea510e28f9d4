"""Waiting for servers of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from worker.errors import RedisUnavailable

_LOOK_SECONDS: Final = 0.05


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition is true; the error of a wait in vain names `what`.

    Raises:
        RedisUnavailable: It did not come true in time.
    """
    gives_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= gives_up_at:
            raise RedisUnavailable(f"Waited {seconds:g} s for {what} in vain.")
        time.sleep(_LOOK_SECONDS)

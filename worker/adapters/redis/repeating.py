"""Repeating what Redis has not confirmed: the answer to a request must not be lost with a blink."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from worker.errors import RedisUnavailable

_Answer = TypeVar("_Answer")
_PAUSE_SECONDS: Final = 0.05
_PAUSE_SECONDS_AT_MOST: Final = 1.0


async def until_confirmed(
    ask: Callable[[], Awaitable[_Answer]], may_repeat: Callable[[], bool]
) -> _Answer:
    """Ask again until Redis answers.

    Args:
        ask: Does the same however often it is called.
        may_repeat: Says whether it should still be repeated.

    Raises:
        RedisUnavailable: It does not answer, and time is up.
    """
    pause_seconds = _PAUSE_SECONDS
    while True:
        try:
            return await ask()
        except RedisUnavailable:
            if not may_repeat():
                raise
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_AT_MOST)

"""Patience with a Redis that is away: its limits, and the repeating of unconfirmed actions.

The clients repeat only what surely had no effect. What they can't tell of is repeated here, as a
whole: an action that is given to it may have taken effect, in part or as a whole, each time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, TypeVar

from segrelay.worker.errors import OperationsMustAct, RedisUnavailable, SealedAnew

READY_SECONDS: Final = 10.0
"""Seconds that a command waits for a Redis that is starting or loading."""
FAILOVER_SECONDS: Final = 60.0
"""Seconds that a command waits for a new master: Sentinels notice a loss after 30 s."""

Answered = TypeVar("Answered")


def repeat_until_confirmed(
    action: Callable[[], Answered],
    wait: Callable[[str], None],
    *,
    away_seconds: float = FAILOVER_SECONDS,
    also: tuple[type[OperationsMustAct], ...] = (),
) -> Answered:
    """Repeat an action until Redis has confirmed it; an action has to be safe to repeat.

    Args:
        action: An attempt that has worked for longer than `away_seconds` begins a new wait.
        wait: Waits a moment, and tells the message to whoever watches.
        away_seconds: The time for which Redis may be away.
        also: Further errors after which the action is repeated.

    Raises:
        RedisUnavailable: It was away for too long.
        SealedAnew: Another attempt would meet the same.
    """
    errors: tuple[type[OperationsMustAct], ...] = (RedisUnavailable, *also)
    away_since = math.inf
    while True:
        begun = time.monotonic()
        try:
            return action()
        except errors as error:
            now = time.monotonic()
            waited = error.waited_seconds if isinstance(error, RedisUnavailable) else 0.0
            has_worked = now - begun - waited > away_seconds
            away_since = now - waited if has_worked else min(away_since, now - waited)
            if isinstance(error, SealedAnew):
                raise
            if now - away_since >= away_seconds:
                if isinstance(error, RedisUnavailable):
                    error.waited_seconds = now - away_since  # whoever repeats all of it, ends too
                raise
            message = error.message
        wait(message)

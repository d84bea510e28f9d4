"""Work that is done in steps, with a state and a lock in Redis: one step at a time.

A step takes the lock, saves the state as it goes, and ends the lock; a step that died leaves a lock
that lapses. The sweep reads when the next step is due from the same key.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from redis import Redis

from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.connection import now_ms, redis_errors
from segrelay.worker.contract.redis.scripts import run_script
from segrelay.worker.errors import LeaseLost

STEP_SECONDS: Final = 5.0
"""The seconds after which a step begins no further request; one takes at most five more."""
LOCK_MS: Final = 20_000
"""The ms after which a lock lapses: longer than a step takes. Saving the state extends it."""
_FIRST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    """The result of a step.

    Args:
        line: For people, e.g. in Flower.
        more: The next step may begin.
        wait_seconds: But not before.
        taken: False where another step is under way: this one did nothing.
    """

    line: str
    more: bool = False
    wait_seconds: float = 0.0
    taken: bool = True


def wait_seconds(failures: int) -> float:
    """Return the delay in seconds after a number of steps without progress."""
    return min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** min(failures, 9))


class StepStore:
    """The state and the lock, in Redis, of one piece of work that is done in steps.

    Args:
        shown: Its name for messages, e.g. `sync 'vip'`.

    Attributes:
        epoch: The number of the step that was taken last; those of later steps are higher. Where a
            step writes elsewhere, it is kept beside what is written, and a lower one is refused.
    """

    def __init__(self, client: Redis, key: str, shown: str) -> None:
        self._client = client
        self._key = key
        self._wakeup = keys.wakeup(key)
        self._shown = shown
        self._token = secrets.token_hex(8)
        self.epoch = 0

    def take(self) -> tuple[bytes, int] | None:
        """Take the lock; returns the state and Redis' clock (ms), None if a step is under way."""
        at_ms, *taken = self._call("take", (self._key, self._wakeup), self._token, LOCK_MS)
        if not taken:
            return None
        self.epoch = int(taken[0])
        return taken[1], int(at_ms)

    def save(self, state: bytes, *, next_ms: int, ends: bool = False) -> None:
        """Write the state; extend the lock, or give it back if the step ends.

        Raises:
            LeaseLost: Somebody else has taken the lock.
        """
        lasting_ms = 0 if ends else LOCK_MS
        if not self._call("save", (self._key,), self._token, lasting_ms, state, next_ms):
            raise self.lost()

    def lost(self) -> LeaseLost:
        """Return the error for a step that has lost its lock to another step."""
        return LeaseLost(f"Another step of {self._shown} has begun, so this one changes nothing.")

    def peek(self) -> bytes:
        """Return the state as it is now; b"" = there is none."""
        with redis_errors():
            text: Any = self._client.hget(self._key, "state")
        return text or b""

    def now_ms(self) -> int:
        """Return the time by Redis' clock, in ms since 1970."""
        return now_ms(self._client)

    def _call(self, script: str, names: Sequence[str], *args: str | bytes | int) -> Any:
        with redis_errors():
            return run_script(self._client, _script(script), names, args)


@cache
def _script(name: str) -> str:
    return (Path(__file__).parent / f"step_{name}.lua").read_text("utf-8")

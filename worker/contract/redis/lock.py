"""The lock that one process at a time holds: a token, an epoch, and an end by Redis' clock.

It stands in a hash beside what its holder writes there, and is checked by the script that writes:
a holder that stood still until somebody else took the lock changes nothing any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import Value, load_script, run_script

_TAKE: Final = load_script("lock_take")
_SAVE: Final = load_script("lock_save")


class Taken(NamedTuple):
    """The answer to a process that wants the lock.

    Attributes:
        at_ms: The time of the answer, by Redis' clock.
        epoch: The number of the holder, higher than those of all before; 0 = it was not taken.
        left_seconds: The time after which somebody else's hold lapses, unless it is renewed.
        field: The value of the lock's field; b"" = there is none.
    """

    at_ms: int
    epoch: int
    left_seconds: float
    field: bytes


class Lock:
    """A lock in a hash of Redis.

    Args:
        key: The key of the hash.
        lasting_ms: The ms after which a holder that does not renew the lock loses it.
        field: The field of the hash that its scripts return.
    """

    def __init__(self, client: Redis, key: str, lasting_ms: int, field: str) -> None:
        self._client = client
        self._key = key
        self._lasting_ms = lasting_ms
        self._field = field
        # Whoever lost the answer to `take` takes it again at once.
        self._token = secrets.token_hex(8)

    def take(self, *, wakeup: str = "", only: str = "") -> Taken:
        """Take the lock if it is free.

        Args:
            wakeup: The key of a wake-up, which is deleted if the lock was taken.
            only: The value that the field has to have; "" = any.
        """
        names = (self._key, wakeup) if wakeup else (self._key,)
        answer = self._run(_TAKE, names, self._token, self._lasting_ms, self._field, only)
        at_ms, epoch, left_ms, found = answer
        return Taken(at_ms, int(epoch), left_ms / 1_000, found)

    def save(
        self, epoch: int, fields: Mapping[str, Value] | None = None, *, ends: bool = False
    ) -> bytes | None:
        """Write fields into the hash, and renew or end the lock; return the lock's field.

        None means that somebody else has taken the lock: nothing was written.
        """
        pairs = [part for pair in (fields or {}).items() for part in pair]
        lasting_ms = 0 if ends else self._lasting_ms
        answer: bytes | None = self._run(
            _SAVE, (self._key,), epoch, lasting_ms, self._field, *pairs
        )
        return answer

    def _run(self, script: str, names: tuple[str, ...], *args: Value) -> Any:
        return run_script(self._client, script, names, args)


def take_turn(client: Redis, key: str, lasting_ms: int) -> bool:
    """Take a lock for a while, and say whether it was free; nobody gives it back."""
    return Lock(client, key, lasting_ms, "").take().epoch > 0

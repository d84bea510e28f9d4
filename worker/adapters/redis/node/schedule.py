"""`RedisSchedule`: which errands are due, for the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import redis

from worker.contract import keys
from worker.contract.celery.messages import Errand
from worker.contract.celery.wire import RENAMES_TASK, RESPONSES_TASK, SYNC_TASK
from worker.contract.keys import PartitionKeys
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings

AGAIN_MS: Final = 3_000
"""The time in ms after which an unanswered bell is rung again."""
LONGEST_LOCK_MS: Final = 60_000
"""The longest time of a lock in ms; one that ends later was set before the clock was set back."""


class _Kept(NamedTuple):
    """An errand, and the key of its state."""

    errand: Errand
    key: str


class _Needing(NamedTuple):
    """An errand that is due only while a certain part of some partition is not empty.

    Attributes:
        length: The command that says how much it holds.
    """

    kept: _Kept
    length: str
    destination: str
    part: str


class RedisSchedule:
    """Finds the due errands of the configured syncs, response streams and stable ids.

    Args:
        client: With short timeouts: whoever asks must not wait for long.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._syncs = [_Kept(Errand(SYNC_TASK, name), keys.sync(name)) for name in settings.sync]
        self._needing = [
            _Needing(
                _Kept(Errand(RESPONSES_TASK, name), keys.responses(name)),
                "XLEN",
                name,
                "responses",
            )
            for name in sorted(
                {each.destination for each in settings.triggers.values() if each.response_stream}
            )
        ]
        self._needing += [
            _Needing(
                _Kept(Errand(RENAMES_TASK, name), keys.changes(name)),
                "HLEN",
                name,
                "changes",
            )
            for name, destination in settings.destinations.items()
            if destination.stable
        ]

    def due(self) -> list[Errand]:
        """Return the due errands that nobody does or was rung for, and ring their bells."""
        if not self._syncs and not self._needing:
            return []
        with redis_errors():
            return [kept.errand for kept in self._rung(self._due())]

    def _due(self) -> list[_Kept]:
        everything = [*self._syncs, *(one.kept for one in self._needing)]
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        for kept in everything:
            pipe.hmget(kept.key, "next", "until")
        numbers = self._settings.redis.numbering.numbers
        for one in self._needing:
            for number in numbers:
                key = getattr(PartitionKeys(one.destination, number), one.part)
                pipe.execute_command(one.length, key)  # type: ignore[no-untyped-call]
        (seconds, micros), *answers = pipe.execute()
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000
        rows, lengths = answers[: len(everything)], iter(answers[len(everything) :])
        empty = {one.kept for one in self._needing if not sum(next(lengths) for _ in numbers)}
        return [
            kept
            for kept, (next_ms, until_ms) in zip(everything, rows, strict=True)
            if kept not in empty
            and int(next_ms or 0) <= now_ms
            and not now_ms < int(until_ms or 0) <= now_ms + LONGEST_LOCK_MS
        ]

    def _rung(self, due: Sequence[_Kept]) -> list[_Kept]:
        if not due:
            return []
        pipe = self._client.pipeline(transaction=False)
        for kept in due:
            pipe.set(keys.bell(kept.key), "1", nx=True, px=AGAIN_MS)
        return [kept for kept, was_set in zip(due, pipe.execute(), strict=True) if was_set]

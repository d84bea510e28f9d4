"""Room in Redis: producers stop at 80 % of its memory, backfill also at its high-water mark.

So draining and Celery always have room, and a full Redis works itself empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, cast

from redis import Redis

from worker.contract import keys
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings
from worker.contract.words import BACKFILL, kind_of_lane

MEMORY_SHARE: Final = 0.8
_LOOKED_AGAIN_SECONDS: Final = 1.0
_MICROSECONDS: Final = 1_000_000
_QUARANTINE_SHARE: Final = 0.125


@dataclass(frozen=True, slots=True)
class Room:
    """More may be published."""


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Nothing more may be published now."""

    reason: Literal["memory", "high_water"]
    message: str


class RoomMeter:
    """The memory that is left in Redis, and its clock, read at most once a second."""

    def __init__(
        self, client: Redis, settings: Settings, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._settings = settings
        self._now = now
        self._looked_at: float | None = None
        self._counted_at: float | None = None
        self._ahead_us = 0
        self._used = 0
        self._most = 0
        self._waiting = 0

    def now_us(self) -> int:
        """Return Redis' time in µs since 1970, to about a millisecond."""
        return int(self._look() * _MICROSECONDS) + self._ahead_us

    def memory(self) -> Room | NoRoom:
        """Return whether Redis has memory for more deliveries."""
        self._look()
        if not self._most or self._used < MEMORY_SHARE * self._most:
            return Room()
        return NoRoom(
            "memory",
            f"Redis is full: {self._used // 1_000_000} of {self._most // 1_000_000} MB are used, "
            f"producers stop at {MEMORY_SHARE:.0%}. Nothing more is taken until the workers have "
            "drained it, or its maxmemory is raised.",
        )

    def lane(self, lane: str) -> Room | NoRoom:
        """Return whether this lane may take more deliveries."""
        room = self.memory()
        if isinstance(room, NoRoom) or kind_of_lane(lane) != BACKFILL:
            return room
        self._count()
        high_water = self._settings.redis.high_water
        if self._waiting < high_water:
            return room
        return NoRoom(
            "high_water",
            f"{self._waiting} deliveries of the backfill lane wait, the mark is {high_water} "
            "(redis.high_water); there is room again when the workers have drained some.",
        )

    def add(self, deliveries: int) -> None:
        """Count deliveries that were published since the last look at Redis."""
        self._waiting += deliveries

    def quarantine_bytes(self, most: int) -> int:
        """Return the bytes that the quarantine may take: at most an eighth of the memory."""
        self._look()
        return min(most, int(_QUARANTINE_SHARE * self._most)) if self._most else most

    def _look(self) -> float:
        now = self._now()
        if self._looked_at is not None and now - self._looked_at < _LOOKED_AGAIN_SECONDS:
            return now
        with redis_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.info("memory")
            pipe.time()
            memory, (seconds, micros) = pipe.execute()
        self._looked_at = now = self._now()
        self._ahead_us = seconds * _MICROSECONDS + micros - int(now * _MICROSECONDS)
        self._used, self._most = int(memory["used_memory"]), int(memory["maxmemory"])
        return now

    def _count(self) -> None:
        now = self._now()
        if self._counted_at is not None and now - self._counted_at < _LOOKED_AGAIN_SECONDS:
            return
        self._waiting = count_waiting(self._client, self._settings, kind=BACKFILL)
        self._counted_at = self._now()


def count_waiting(client: Redis, settings: Settings, *, kind: str = "") -> int:
    """Return how many deliveries wait, in all destinations that Redis knows.

    The kind is `live` or `backfill`; "" means both.
    """
    with redis_errors():
        known = cast("set[bytes]", client.smembers(keys.DESTINATIONS))
        partitions = [
            keys.PartitionKeys(name.decode(), number)
            for name in sorted(known)
            for number in settings.redis.numbering.numbers
        ]
        pipe = client.pipeline(transaction=False)
        for stream in _streams_of(client, partitions, kind):
            pipe.xlen(stream)
        return sum(pipe.execute())


def _streams_of(client: Redis, partitions: list[keys.PartitionKeys], kind: str) -> list[str]:
    pipe = client.pipeline(transaction=False)
    for partition in partitions:
        pipe.smembers(partition.streams)
    sets = pipe.execute()
    return [
        partition.stream(name)
        for partition, names in zip(partitions, sets, strict=True)
        for name in (raw.decode() for raw in names)
        if not kind or kind_of_lane(keys.split_stream_name(name)[0]) == kind
    ]

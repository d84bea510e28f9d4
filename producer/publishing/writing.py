"""Writing deliveries, while Redis has room: one script a partition, many in one round trip.

Producers stop at 80 % of Redis' memory, and backfill also at its high-water mark, so that draining
and Celery always have room, and a full Redis works itself empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from segrelay.producer.publishing.published import Entries, PartitionAddress, Published, entries_of
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis import accept
from segrelay.worker.contract.redis.accept import (
    OTHERWISE_SEALED,
    Entrant,
    NewDelivery,
    Roll,
    WakeUpText,
    accept_call,
)
from segrelay.worker.contract.redis.claim import read_names
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_us, used_and_most_bytes
from segrelay.worker.contract.redis.scripts import ScriptCall, Value, run_each
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import BACKFILL, kind_of_lane
from segrelay.worker.errors import JobHeld, LeaseLost, SealedAnew

_SOURCE_REMEMBERED_SECONDS: Final = 90 * 24 * 3600
"""The seconds during which an interrupted job can be resumed where it stopped."""
_CLOSED: Final = -2
"""The answer of a partition that is closed to the reader of a job."""
_BYTES_AT_ONCE: Final = 500_000
"""The bytes of scripts that are sent in one go: Redis runs them in about 4 ms, and all others wait
for that long."""
_ARGUMENT_BYTES: Final = 100
"""The bytes that an argument costs in addition to its text."""


@dataclass(frozen=True, slots=True)
class JobPosition:
    """The position in a job's source at which a call ends.

    Args:
        job: The job's name, "" where there is none.
        position: None where the source has no positions.
        source: The source that the positions count in, e.g. a digest of the file: two files of one
            job don't hide each other.
        noted: A command that writes down how far the job was before, or (); it goes to Redis with
            the deliveries, which costs no wait for the disk of its own. It is lost with them.
        epoch: Of the job's reader, see `accept_call`.
    """

    job: str = ""
    position: int | None = None
    source: str = ""
    noted: tuple[Value, ...] = ()
    epoch: int = 0


NOWHERE: Final = JobPosition()
"""The position of events that belong to no job."""


def lay_out(
    deliveries: Mapping[PartitionAddress, Sequence[NewDelivery]],
    progress: JobPosition,
    rolls: Mapping[PartitionAddress, Roll] = MappingProxyType({}),
    entrants: Mapping[PartitionAddress, Collection[Entrant]] = MappingProxyType({}),
    *,
    secret_id: bytes,
    wakeup: Callable[[PartitionAddress], WakeUpText | None] = lambda _: None,
) -> dict[PartitionAddress, ScriptCall]:
    """Return the calls that write deliveries, changes of members, and names for syncs.

    Args:
        deliveries: By partition.
        progress: The position in the job's source.
        rolls: By partition, the members that change.
        entrants: By partition, the people whose names a sync will need.
        secret_id: The id of the secret that the digests of the profiles were made with.
        wakeup: Returns the wake-up of a partition that the write leaves in its queue.
    """
    return {
        to: accept_call(
            PartitionKeys(*to),
            deliveries.get(to, ()),
            job=progress.job,
            source=progress.source,
            position=progress.position,
            epoch=progress.epoch,
            roll=rolls.get(to),
            entrants=entrants.get(to, ()),
            claimed=secret_id,
            wakeup=wakeup(to),
        )
        for to in sorted({*deliveries, *rolls})
    }


def write(
    client: Redis, calls: Mapping[PartitionAddress, ScriptCall], progress: JobPosition
) -> Published:
    """Run the scripts that accept a draft, one call for each partition.

    Args:
        client: Redis.
        calls: The script calls, by partition.
        progress: The position in the source that stands in the calls.

    Returns:
        The scripts' answers, added up, without anything that only the draft knows.

    Raises:
        RedisUnavailable: Some partitions may have theirs, others not.
        LeaseLost: A later step of the sync has begun.
        JobHeld: The job was paused, aborted, or is read by somebody else.
        SealedAnew: Some partitions may have theirs; the others are sealed with another secret.
    """
    accepted = 0
    woken: list[PartitionAddress] = []
    entries: dict[str, Entries] = {}
    groups = _groups(calls.values())
    answers = [answer for group in groups for answer in _run(client, group, progress)]
    for (address, call), answer in zip(calls.items(), answers, strict=True):
        if answer[0] == OTHERWISE_SEALED:
            raise SealedAnew
        if answer[0] == _CLOSED:
            raise JobHeld(
                f"Job '{progress.job}' was paused, aborted, or is read by another process: "
                "nothing more of this reading is accepted."
            )
        if answer[0] < 0:
            raise LeaseLost("Another step of this sync has begun, so this one changes nothing.")
        added, wake, *entry_ids = answer
        accepted += added
        if wake:
            woken.append(address)
        entries |= entries_of(cast("Sequence[str]", accept.streams_of(call)), entry_ids)
    return Published(accepted=accepted, woken=tuple(woken), entries=entries)


def _groups(calls: Iterable[ScriptCall]) -> Iterator[list[ScriptCall]]:
    """Yield the calls that go to Redis together."""
    group: list[ScriptCall] = []
    size = 0
    for call in calls:
        group.append(call)
        size += _ARGUMENT_BYTES * len(call.args)
        size += sum([len(text) for text in call.args if type(text) is bytes])
        if size >= _BYTES_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _run(client: Redis, calls: Sequence[ScriptCall], progress: JobPosition) -> list[Any]:
    then: list[Sequence[Value]] = [
        ("EXPIRE", accept.key_of_jobs(call), _SOURCE_REMEMBERED_SECONDS)
        for call in calls
        if progress.source
    ]
    if progress.noted:
        then.append(progress.noted)
    return run_each(client, accept.SCRIPT, calls, then=then, synced_once=True, replicated=True)


MEMORY_SHARE: Final = 0.8
_LOOKED_AGAIN_SECONDS: Final = 1.0
_MICROSECONDS: Final = 1_000_000
_QUARANTINE_SHARE: Final = 0.125


@dataclass(frozen=True, slots=True)
class CapacityUsed:
    """Nothing more may be published now."""

    reason: Literal["memory", "high_water"]
    message: str


class CapacityMeter:
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

    def memory(self) -> CapacityUsed | None:
        """Return why Redis has no memory for more deliveries; None = it has."""
        self._look()
        if not self._most or self._used < MEMORY_SHARE * self._most:
            return None
        return CapacityUsed(
            "memory",
            f"Redis is full: {self._used // 1_000_000} of {self._most // 1_000_000} MB are used, "
            f"producers stop at {MEMORY_SHARE:.0%}. Nothing more is taken until the workers have "
            "drained it, or its maxmemory is raised.",
        )

    def lane(self, lane: str) -> CapacityUsed | None:
        """Return why this lane may take no more deliveries; None = it may."""
        full = self.memory()
        if full or kind_of_lane(lane) != BACKFILL:
            return full
        self._count()
        high_water = self._settings.redis.high_water
        if self._waiting < high_water:
            return None
        return CapacityUsed(
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
        self._used, self._most = used_and_most_bytes(self._client)
        clock_us = now_us(self._client)
        self._looked_at = now = self._now()
        self._ahead_us = clock_us - int(now * _MICROSECONDS)
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
    partitions = [
        PartitionKeys(name, number)
        for name in read_names(client)
        for number in range(settings.redis.partitions)
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

"""Writing deliveries: one script a partition, many partitions in one round trip."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, cast

from redis import Redis

from producer.publishing.published import Entries, PartitionAddress, Published
from worker.contract.keys import PartitionKeys
from worker.contract.redis import accept
from worker.contract.redis.accept import (
    FIRST_STREAM,
    RENUMBERED,
    Entrant,
    NewDelivery,
    Roll,
    accept_call,
)
from worker.contract.redis.scripts import ScriptCall, Value, run_each
from worker.errors import JobHeld, LeaseLost, PartitionsChange

_SOURCE_REMEMBERED_SECONDS: Final = 90 * 24 * 3600
"""The seconds during which an interrupted job can be resumed where it stopped."""
_CLOSED: Final = -2
"""The answer of a partition that is closed to the reader of a job."""
_BYTES_AT_ONCE: Final = 2_500_000
"""The bytes of scripts that are sent in one go: Redis runs them in about 20 ms."""
_ARGUMENT_BYTES: Final = 100
"""The bytes that an argument costs in addition to its text."""


@dataclass(frozen=True, slots=True)
class JobPosition:
    """The position in a job's source at which a call ends.

    Args:
        job: The job's name, "" where there is none.
        position: None where the source has no positions.
        source: What the positions count in, e.g. a digest of the file: two files of one job
            don't hide each other.
        noted: A command that writes down how far the job was before, or (); it goes to Redis with
            the deliveries, which costs no wait for the disk of its own. It is lost with them.
        epoch: Of the job's reader, see `accept_call`.
    """

    job: str = ""
    position: int | None = None
    source: str = ""
    noted: tuple[Value, ...] = ()
    epoch: int = 0


def write(
    client: Redis,
    deliveries: Mapping[PartitionAddress, Sequence[NewDelivery]],
    progress: JobPosition,
    rolls: Mapping[PartitionAddress, Roll] = MappingProxyType({}),
    entrants: Mapping[PartitionAddress, Collection[Entrant]] = MappingProxyType({}),
) -> Published:
    """Write deliveries, the changes of the members that a sync knows, and names for syncs.

    Returns:
        The scripts' answers, added up, without anything that only the draft knows.

    Raises:
        RedisUnavailable: Some partitions may have theirs, others not.
        LeaseLost: A later step of the sync has begun.
        JobHeld: The job was paused, aborted, or is read by somebody else.
        PartitionsChange: Some partitions may have theirs; the others have other numbers now.
    """
    places = sorted({*deliveries, *rolls})
    calls = [
        _call(place, deliveries.get(place, ()), progress, rolls.get(place), entrants.get(place, ()))
        for place in places
    ]
    accepted = 0
    rang: list[PartitionAddress] = []
    entries: dict[str, Entries] = {}
    answers = [answer for group in _groups(calls) for answer in _run(client, group, progress)]
    for place, call, answer in zip(places, calls, answers, strict=True):
        if answer[0] == RENUMBERED:
            raise PartitionsChange
        if answer[0] == _CLOSED:
            raise JobHeld(
                f"Job '{progress.job}' was paused, aborted, or is read by another process: "
                "nothing more of this reading is accepted."
            )
        if answer[0] < 0:
            raise LeaseLost("Another step of this sync has begun, so this one changes nothing.")
        added, ring, *ids = answer
        accepted += added
        if ring:
            rang.append(place)
        entries |= _entries(call, ids)
    repeated = sum(map(len, deliveries.values())) - accepted
    return Published(accepted=accepted, repeated=repeated, rang=tuple(rang), entries=entries)


def _call(
    place: PartitionAddress,
    deliveries: Sequence[NewDelivery],
    progress: JobPosition,
    roll: Roll | None,
    entrants: Collection[Entrant],
) -> ScriptCall:
    keys = PartitionKeys(*place)
    call = accept_call(
        keys,
        deliveries,
        job=progress.job,
        position=progress.position,
        epoch=progress.epoch,
        roll=roll,
        entrants=entrants,
    )
    if not progress.source:
        return call
    counts, streams, bell, _, *rest = call.keys
    return replace(call, keys=(counts, streams, bell, f"{keys.jobs}:{progress.source}", *rest))


def _groups(calls: Iterable[ScriptCall]) -> Iterator[list[ScriptCall]]:
    """Yield the calls that go to Redis together."""
    group: list[ScriptCall] = []
    size = 0
    for call in calls:
        group.append(call)
        size += _ARGUMENT_BYTES * len(call.args)
        size += sum(len(text) for text in call.args if type(text) is bytes)
        if size >= _BYTES_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _run(client: Redis, calls: Sequence[ScriptCall], progress: JobPosition) -> list[Any]:
    then: list[Sequence[Value]] = [
        ("EXPIRE", call.keys[3], _SOURCE_REMEMBERED_SECONDS) for call in calls if progress.source
    ]
    if progress.noted:
        then.append(progress.noted)
    return run_each(client, accept.SCRIPT, calls, then=then, synced_once=True, replicated=True)


def _entries(call: ScriptCall, ids: Sequence[bytes]) -> dict[str, Entries]:
    names = cast("Sequence[str]", call.keys[FIRST_STREAM:])
    streams = zip(names, ids[::2], ids[1::2], strict=False)
    return {name: Entries(first.decode(), last.decode()) for name, first, last in streams if first}

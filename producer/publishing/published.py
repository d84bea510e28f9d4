"""The options, the input and the result of publishing, and the write while Redis has room.

`PublishOptions` says how payloads are published, `Draft` is what becomes of them, and `Published`
the result. One script a partition writes it, many in one round trip. Producers stop at 80 % of
Redis' memory, and backfill also at its high-water mark, so that draining and Celery always have
room, and a full Redis works itself empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from segrelay.producer.events.payloads import ReadingRules, Refused
from segrelay.worker.contract import keys
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis import accept
from segrelay.worker.contract.redis.accept import (
    OTHERWISE_SEALED,
    Entrant,
    Member,
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
from segrelay.worker.contract.words import (
    BACKFILL,
    JOB_PREFIX,
    LIVE,
    NAME_PATTERN,
    Refusal,
    job_of_lane,
    kind_of_lane,
    lane_of_job,
)
from segrelay.worker.errors import JobHeld, LeaseLost, SealedAnew, UsageWrong


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """The way in which payloads or events are published.

    Attributes:
        lane: The lane: `live`, `backfill`, or a job's.
        job: The name of a job, which has a lane of its own; "" = none.
        state: True if the payloads were made up by comparison; an event says it of itself.
        skip_hook: True if the destination should not start journeys. None = it should not if the
            lane is of the backfill kind, or the event says so. A trigger may overrule it.
        triggers: The only triggers that get deliveries; none = all that want the events.
        again: True if what was delivered before, or is already there, is delivered too; never what
            something newer has superseded.
        older_than_ledger: True if events that are older than what the ledger remembers are
            accepted, too.
    """

    lane: str = LIVE
    job: str = ""
    state: bool = False
    skip_hook: bool | None = None
    triggers: tuple[str, ...] = ()
    again: bool = False
    older_than_ledger: bool = False

    def resolved(self) -> PublishOptions:
        """Return the options with their lane resolved: the named lane, or the job's own.

        Raises:
            UsageWrong: There is no such lane, or the job's name is none.
        """
        lane = lane_of_job(self.job) if self.job else self.lane
        if lane in (LIVE, BACKFILL):
            return replace(self, lane=lane, job="")
        if not lane.startswith(JOB_PREFIX):
            raise UsageWrong(
                f"There is no lane '{lane}': it is {LIVE} or {BACKFILL}; a job has its own."
            )
        if not NAME_PATTERN.fullmatch(job_of_lane(lane)):
            raise UsageWrong(
                f"A job's name has only a to z, 0 to 9 and -; '{job_of_lane(lane)}' has others."
            )
        return replace(self, lane=lane, job="")

    def skips_hook(self, event: Event) -> bool:
        """Say whether the destination should not start journeys for this event."""
        return self.skips if self.skip_hook is not None else event.skip_hook or self.skips

    @property
    def skips(self) -> bool:
        """Say whether the destination should start no journeys where the event does not say."""
        return kind_of_lane(self.lane) != LIVE if self.skip_hook is None else self.skip_hook


AS_USUAL: Final = PublishOptions()
"""The usual options: live events, for all triggers that want them."""


PartitionAddress = tuple[str, int]
"""The address of a partition: the destination's name and the partition's number."""

PROBLEMS_KEPT: Final = 10_000
"""The number of problems kept in a sum of results: a file of bad lines must not fill the memory."""


class Entries(NamedTuple):
    """The entries that were added to one stream, by the ids of the first and the last."""

    first: str
    last: str


def entries_of(streams: Iterable[str], ids: Sequence[bytes]) -> dict[str, Entries]:
    """Return the entries that a script has added, by the keys of their streams.

    Args:
        streams: The keys of all streams that the script was given.
        ids: The first and the last id for each stream; empty = it has added none.
    """
    pairs = zip(streams, ids[::2], ids[1::2], strict=True)
    return {name: Entries(first.decode(), last.decode()) for name, first, last in pairs if first}


@dataclass(slots=True)
class Published:
    """The result of publishing payloads. Two results can be added.

    Args:
        events: events that could be read, wanted or not.
        accepted: deliveries that are in Redis now.
        unmatched: events that no trigger wants; in the quarantine.
        refused: payloads and events that could not be placed; in the quarantine.
        repeated: deliveries that an earlier attempt of the same job had published already.
        without_hook: deliveries for which the destination is told not to start journeys.
        forgotten: the refused ones that are older than what the ledger remembers.
        problems: the refusals without their content, at most 10,000 of a sum.
        woken: partitions that have something to drain and that nobody had woken.
        entries: the entries that were added, by the stream's key.
        people: digests of the profiles in the deliveries, where somebody wants to know.
    """

    payloads: int = 0
    events: int = 0
    accepted: int = 0
    unmatched: int = 0
    refused: int = 0
    repeated: int = 0
    without_hook: int = 0
    forgotten: int = 0
    problems: list[Refused] = field(default_factory=list)
    woken: tuple[PartitionAddress, ...] = ()
    entries: Mapping[str, Entries] = field(default_factory=dict)
    people: tuple[bytes, ...] = ()

    @property
    def quarantined(self) -> int:
        """Return how many events and payloads could not be placed, and are kept."""
        return self.refused + self.unmatched

    def __add__(self, other: Published) -> Published:
        entries = dict(self.entries)
        for stream, added in other.entries.items():
            entries[stream] = Entries(entries.get(stream, added).first, added.last)
        return Published(
            **{name: getattr(self, name) + getattr(other, name) for name in _COUNTS},
            forgotten=self.forgotten + other.forgotten,
            problems=(self.problems + other.problems)[:PROBLEMS_KEPT],
            woken=tuple(dict.fromkeys(self.woken + other.woken)),
            entries=entries,
            people=self.people + other.people,
        )

    def document(self) -> dict[str, Any]:
        """Return the result as a document: what `segrelay send --json` prints."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            Refusal.OLDER_THAN_LEDGER.value: self.forgotten,
            "problems": [
                {
                    "line": one.line,
                    "index": one.index,
                    "reason": one.reason.value,
                    "message": one.message,
                }
                for one in self.problems
            ],
        }


_COUNTS: Final = (
    "payloads",
    "events",
    "accepted",
    "unmatched",
    "refused",
    "repeated",
    "without_hook",
)


@dataclass(slots=True)
class Draft:
    """Everything that one call will write, built before it is written.

    Args:
        partitions: the number of partitions.
        triggers: the only triggers that get deliveries; none = all that want the events.
        result: what is known of the result before anything is written.
        numbers: the number of events and refusals so far, by which the next one is numbered.
        size_bytes: the size of the texts that will be written.
        members: the changes of a sync; its deliveries have the numbers of their members.
        entrants: the people who enter, where a sync of the audience will need their names.
        kept: the records for the quarantine.
        secret_id: the id of the secret with which the digests are made; b"" = without one.
        digests: the digest of the profile of each delivery, in the order in which they were added.
        calls: the calls that write it, by partition; None = it is not laid out yet. Then nothing
            is left but to send them, and another process than the one that writes can make them.
    """

    lane: str
    reading: ReadingRules
    partitions: int
    triggers: tuple[str, ...] = ()
    again: bool = False
    result: Published = field(default_factory=Published)
    numbers: int = 0
    size_bytes: int = 0
    deliveries: dict[PartitionAddress, list[NewDelivery]] = field(default_factory=dict)
    members: dict[PartitionAddress, list[Member]] = field(default_factory=dict)
    entrants: dict[PartitionAddress, set[Entrant]] = field(default_factory=dict)
    kept: list[Refused] = field(default_factory=list)
    secret_id: bytes = field(default_factory=lambda: PROTECTION.secret_id)
    digests: list[bytes] = field(default_factory=list)
    calls: Mapping[PartitionAddress, ScriptCall] | None = None

    @property
    def deliveries_count(self) -> int:
        return len(self.digests)

    def add(self, address: PartitionAddress, delivery: NewDelivery) -> None:
        others = self.deliveries.get(address)
        if others is None:
            self.deliveries[address] = [delivery]
        else:
            others.append(delivery)
        header = delivery.header
        self.digests.append(header.digest)
        self.size_bytes += len(delivery.profile)
        if header.skip_hook:
            self.result.without_hook += 1

    def people(self, since: int) -> tuple[bytes, ...]:
        """Return the digests of the profiles in all deliveries from an index on, each once."""
        return tuple(dict.fromkeys(self.digests[since:]))

    def keep(self, one: Refused) -> None:
        """Add what is to be kept in the quarantine."""
        self.size_bytes += len(one.content)
        self.kept.append(one)

    def refuse(self, one: Refused, line: int, index: int) -> None:
        """Add a refusal to the problems, and its content, if there is any, to the quarantine."""
        self.result.refused += 1
        self.result.forgotten += one.reason is Refusal.OLDER_THAN_LEDGER
        self.result.problems.append(replace(one, content=b"", line=line, index=index))
        if one.content:
            self.keep(one)


class Portion(NamedTuple):
    """A number of events, where refusals count as events do, and the bytes that they take.

    As a limit, it lets in the event that passes it.
    """

    events: int
    size_bytes: int

    @classmethod
    def of(cls, draft: Draft) -> Portion:
        """Return how much a draft holds."""
        return cls(draft.numbers, draft.size_bytes)

    def is_reached(self, draft: Draft, since: Portion) -> bool:
        """Say whether a draft has taken as much since it held less."""
        events, size_bytes = draft.numbers - since.events, draft.size_bytes - since.size_bytes
        return events >= self.events or size_bytes >= self.size_bytes


class MemberChange(NamedTuple):
    """One person's change that a sync found: the new mark and the event that follows.

    Attributes:
        event: The event that follows; None where nothing has to be told.
    """

    member: Member
    event: Event | None = None


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
        position: The number of the position; None where the source has no positions.
        source: The source that the positions count in, e.g. a digest of the file: two files of one
            job don't hide each other.
        noted: A command that writes down how far the job was before, or (); it goes to Redis with
            the deliveries, which costs no wait for the disk of its own. It is lost with them.
        epoch: The epoch of the job's reader, see `accept_call`.
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
        deliveries: The deliveries, by partition.
        progress: The position in the job's source.
        rolls: The members that change, by partition.
        entrants: The people whose names a sync will need, by partition.
        secret_id: The id of the secret that the digests of the profiles were made with.
        wakeup: A function that returns the wake-up of a partition that the write leaves in its
            queue.
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

    def memory(self) -> str:
        """Return why Redis has no memory for more deliveries; "" = it has."""
        self._look()
        if not self._most or self._used < MEMORY_SHARE * self._most:
            return ""
        return (
            f"Redis is full: {self._used // 1_000_000} of {self._most // 1_000_000} MB are used, "
            f"producers stop at {MEMORY_SHARE:.0%}. Nothing more is taken until the workers have "
            "drained it, or its maxmemory is raised."
        )

    def lane(self, lane: str) -> str:
        """Return why this lane may take no more deliveries; "" = it may."""
        full = self.memory()
        if full or kind_of_lane(lane) != BACKFILL:
            return full
        self._count()
        high_water = self._settings.redis.high_water
        if self._waiting < high_water:
            return ""
        return (
            f"{self._waiting} deliveries of the backfill lane wait, the mark is {high_water} "
            "(redis.high_water); there is room again when the workers have drained some."
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

"""The options, the input and the result of publishing.

`PublishOptions` says how payloads are published, `Draft` is what becomes of them, and `Published`
the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from segrelay.producer.events.payloads import ReadingRules, Refused
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.accept import Entrant, Member, NewDelivery
from segrelay.worker.contract.redis.scripts import ScriptCall
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
from segrelay.worker.errors import UsageWrong


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """The way in which payloads or events are published.

    Attributes:
        lane: `live`, `backfill`, or a job's lane.
        job: Name of a job, which has a lane of its own.
        state: The payloads were made up by comparison; an event says it of itself.
        skip_hook: The destination should not start journeys. None: it should not if the lane is of
            the backfill kind, or the event says so. A trigger may overrule it.
        triggers: The only ones that get deliveries; none = all that want the events.
        again: Deliver also what was delivered before, or is already there; never what something
            newer has superseded.
        older_than_ledger: Accept also events that are older than what the ledger remembers.
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
        streams: All streams that it was given.
        ids: For each of them the first and the last id; empty = it has added none.
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
        numbers: how many events and refusals were read: the number of the next.
        size_bytes: the size of the texts that will be written.
        members: the changes of a sync; its deliveries have the numbers of their members.
        entrants: the people who enter, where a sync of the audience will need their names.
        kept: the records for the quarantine.
        secret_id: the id of the secret with which the digests are made; b"" = without one.
        digests: of the profile of each delivery, in the order in which they were added.
        calls: the calls that write it, by partition; None = it is not laid out yet. Then nothing
            is left but to send them, and another process than the one that writes can make them.
        example: the packed profile of one of the deliveries; b"" = there are none.
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
    example: bytes = b""

    @property
    def deliveries_count(self) -> int:
        """Return how many deliveries there are."""
        return len(self.digests)

    def add(self, address: PartitionAddress, delivery: NewDelivery) -> None:
        """Add a delivery for a partition."""
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
        """Return the digests of the profiles in all deliveries but the first ones, each once."""
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
        event: None where nothing has to be told.
    """

    member: Member
    event: Event | None = None

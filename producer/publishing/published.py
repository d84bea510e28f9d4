"""The options, the input and the result of publishing: `PublishOptions`, `Draft`, `Published`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from segrelay.producer.events.payloads import ReadingRules, Refused
from segrelay.producer.publishing.quarantine import NewRecord
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.redis.accept import Entrant, Member, NewDelivery
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


class PublishOptions(NamedTuple):
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
        return self._replace(lane=_lane_for(self.lane, self.job), job="")

    def skips_hook(self, event: Event) -> bool:
        """Say whether the destination should not start journeys for this event."""
        return self.skips if self.skip_hook is not None else event.skip_hook or self.skips

    @property
    def skips(self) -> bool:
        """Say whether the destination should start no journeys where the event does not say."""
        return kind_of_lane(self.lane) != LIVE if self.skip_hook is None else self.skip_hook


AS_USUAL: Final = PublishOptions()
"""The usual options: live events, for all triggers that want them."""


def _lane_for(lane: str, job: str) -> str:
    if job:
        return lane_of_job(_checked_job(job))
    if lane in (LIVE, BACKFILL):
        return lane
    if lane.startswith(JOB_PREFIX):
        return lane_of_job(_checked_job(job_of_lane(lane)))
    raise UsageWrong(f"There is no lane '{lane}': it is {LIVE} or {BACKFILL}; a job has its own.")


def _checked_job(job: str) -> str:
    if NAME_PATTERN.fullmatch(job):
        return job
    raise UsageWrong(f"A job's name has only a to z, 0 to 9 and -; '{job}' has others.")


PartitionAddress = tuple[str, int]
"""The address of a partition: the destination's name and the partition's number."""

PROBLEMS_KEPT: Final = 10_000
"""The number of problems kept in a sum of results: a file of bad lines must not fill the memory."""


class Entries(NamedTuple):
    """The entries that were added to one stream, by the ids of the first and the last."""

    first: str
    last: str


@dataclass(frozen=True, slots=True)
class RefusedAt:
    """A refusal, with the position of the payload that caused it.

    Args:
        line: Of the source, or the payload's number in the call, from 1.
        index: Of the payload in the array of that line, from 0.
    """

    line: int
    index: int
    reason: str
    message: str
    audience: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """The result of publishing payloads. Two results can be added.

    Args:
        events: That could be read, wanted or not.
        accepted: Deliveries that are in Redis now.
        unmatched: Events that no trigger wants; in the quarantine.
        refused: Payloads and events that could not be placed; in the quarantine.
        forgotten: Those of them that are older than what the ledger remembers.
        repeated: Deliveries that an earlier attempt of the same job had published already.
        without_hook: Deliveries for which the destination is told not to start journeys.
        as_text: Fields whose integers above 2^53 are carried as text, and in how many events: as
            the doubles that templates calculate with, two of them could become one.
        problems: At most 10,000 of a sum.
        woken: Partitions that have something to drain and that nobody has woken yet.
        entries: The entries added to the streams, by the stream's key.
        people: Digests of those whom the deliveries are about, where somebody wants to know.
    """

    payloads: int = 0
    events: int = 0
    accepted: int = 0
    unmatched: int = 0
    refused: int = 0
    repeated: int = 0
    without_hook: int = 0
    as_text: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[RefusedAt, ...] = ()
    woken: tuple[PartitionAddress, ...] = ()
    entries: Mapping[str, Entries] = field(default_factory=dict)
    people: tuple[bytes, ...] = ()
    forgotten: int = 0

    @property
    def quarantined(self) -> int:
        """Return how many events and payloads could not be placed, and are kept."""
        return self.refused + self.unmatched

    def __add__(self, other: Published) -> Published:
        return Published(
            payloads=self.payloads + other.payloads,
            events=self.events + other.events,
            accepted=self.accepted + other.accepted,
            unmatched=self.unmatched + other.unmatched,
            refused=self.refused + other.refused,
            repeated=self.repeated + other.repeated,
            without_hook=self.without_hook + other.without_hook,
            as_text=Counter(self.as_text) + Counter(other.as_text),
            problems=(self.problems + other.problems)[:PROBLEMS_KEPT],
            woken=tuple(dict.fromkeys(self.woken + other.woken)),
            entries=dict(_joined(self.entries, other.entries)),
            people=self.people + other.people,
            forgotten=self.forgotten + other.forgotten,
        )

    def document(self) -> dict[str, Any]:
        """Return the result as a document: what `segrelay send --json` prints."""
        counts = ("payloads", "events", "accepted", "unmatched", "refused", "repeated")
        return {
            **{name: getattr(self, name) for name in (*counts, "without_hook")},
            Refusal.OLDER_THAN_LEDGER.value: self.forgotten,
            "as_text": dict(self.as_text),
            "problems": [
                {
                    "line": problem.line,
                    "index": problem.index,
                    "reason": problem.reason,
                    "message": problem.message,
                }
                for problem in self.problems
            ],
        }


def _joined(
    earlier: Mapping[str, Entries], later: Mapping[str, Entries]
) -> Iterator[tuple[str, Entries]]:
    for stream in {**earlier, **later}:
        first = earlier.get(stream) or later[stream]
        last = later.get(stream) or first
        yield stream, Entries(first.first, last.last)


@dataclass(slots=True)
class Draft:
    """Everything that one call will write, built before it is written.

    Args:
        numbering: The numbering by which the deliveries were placed.
        numbers: The number of events and refusals read: the number of the next.
        size_bytes: Of the texts that will be written.
        members: The changes of a sync; its deliveries have the numbers of their members.
        entrants: The people who enter, where a sync of the audience will need their names.
    """

    lane: str
    reading: ReadingRules
    numbering: Numbering
    triggers: tuple[str, ...] = ()
    again: bool = False
    payloads: int = 0
    events: int = 0
    unmatched: int = 0
    numbers: int = 0
    size_bytes: int = 0
    without_hook: int = 0
    as_text: Counter[str] = field(default_factory=Counter)
    problems: list[RefusedAt] = field(default_factory=list)
    deliveries: dict[PartitionAddress, list[NewDelivery]] = field(default_factory=dict)
    members: dict[PartitionAddress, list[Member]] = field(default_factory=dict)
    entrants: dict[PartitionAddress, set[Entrant]] = field(default_factory=dict)
    kept: list[NewRecord] = field(default_factory=list)

    @property
    def deliveries_count(self) -> int:
        """Return how many deliveries there are."""
        return sum(map(len, self.deliveries.values()))

    def people(self) -> tuple[bytes, ...]:
        """Return the digests of the profiles in the deliveries, each once."""
        found = (one.header.digest for each in self.deliveries.values() for one in each)
        return tuple(dict.fromkeys(found))

    def keep(self, reason: Refusal, audience: str, message: str, content: bytes) -> None:
        """Add a record that is to be kept in the quarantine."""
        reading = self.reading
        self.size_bytes += len(content)
        self.kept.append(
            NewRecord(
                reason, audience, message, content, self.lane, reading.state, reading.skip_hook
            )
        )

    def refuse(self, refused: Refused, *, line: int, index: int) -> None:
        """Add a refusal to the problems, and its content, if there is any, to the quarantine."""
        self.problems.append(
            RefusedAt(line, index, refused.reason.value, refused.message, refused.audience)
        )
        if refused.content:
            self.keep(refused.reason, refused.audience, refused.message, refused.content)


def joined(drafts: Sequence[Draft]) -> Draft:
    """Join one or more drafts, of no job, into one that is written at once."""
    whole = Draft(drafts[0].lane, drafts[0].reading, drafts[0].numbering)
    for draft in drafts:
        for place, deliveries in draft.deliveries.items():
            whole.deliveries.setdefault(place, []).extend(deliveries)
        for place, entrants in draft.entrants.items():
            whole.entrants.setdefault(place, set()).update(entrants)
        whole.kept.extend(draft.kept)
    return whole


def published_of(draft: Draft, written: Published) -> Published:
    """Return the result of publishing a draft, from the result of writing it."""
    return replace(
        written,
        payloads=draft.payloads,
        events=draft.events,
        unmatched=draft.unmatched,
        refused=len(draft.problems),
        without_hook=draft.without_hook,
        as_text=draft.as_text,
        problems=tuple(draft.problems),
        forgotten=sum(each.reason == Refusal.OLDER_THAN_LEDGER for each in draft.problems),
    )


class Portion(NamedTuple):
    """The limits of one draft; the event that passes a limit is the last."""

    events: int
    size_bytes: int

    def is_full(self, draft: Draft) -> bool:
        """Say whether a draft should take no more events; refusals count as events do."""
        return draft.numbers >= self.events or draft.size_bytes >= self.size_bytes


class MemberChange(NamedTuple):
    """One person's change that a sync found: the new mark and the event that follows.

    Attributes:
        event: None where nothing has to be told.
    """

    member: Member
    event: Event | None = None

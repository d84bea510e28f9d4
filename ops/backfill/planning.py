"""`segrelay backfill plan`: count from its rows what a backfill would do, and write nothing.

The first people of a job are found in the same way, and read back as the destination holds them.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from segrelay.ops.backfill.job_request import RowOptions, spec_of
from segrelay.ops.insider import AS_SENT, read_sent
from segrelay.ops.state.opened import Reads
from segrelay.ops.state.person import Names, read_records
from segrelay.ops.terminal.console import progress
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.tables import TableColumn, number_columns, text_columns
from segrelay.producer.backfill.jobs import Spec
from segrelay.producer.backfill.publishing import Piece
from segrelay.producer.backfill.reading import pieces_of
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import Draft, Published
from segrelay.producer.sources.opening import STANDARD_INPUT
from segrelay.worker.checks.preview import (
    Candidate,
    Previewed,
    failure_without_id,
    in_want_of_id,
    preview,
)
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.printable import hidden, plural
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.words import Refusal, Skip
from segrelay.worker.core.ledger import LedgerEvent, judge
from segrelay.worker.destinations.api import Shaped
from segrelay.worker.destinations.registry import api_of

SAMPLE: Final = 100
"""The number of deliveries of each trigger that are rendered to estimate the size of a user."""
BAD_ROWS_SHOWN: Final = 1_000


@dataclass(slots=True)
class TriggerPlan:
    """The plan of a backfill for one trigger.

    Args:
        known: The number of these that the ledger would skip, by reason.
        problems: The reasons why events of the sample would be dead, and what to do; with their
            number.
        by_partition: The number of these that would be sent, by partition.
    """

    deliveries: int = 0
    known: Counter[Skip] = field(default_factory=Counter)
    by_partition: Counter[int] = field(default_factory=Counter)
    sample: list[Candidate] = field(default_factory=list)
    previewed: list[Previewed] = field(default_factory=list)
    problems: dict[str, int] = field(default_factory=dict)
    requests: int = 0

    @property
    def left(self) -> int:
        """Return the number of deliveries that would be sent."""
        return self.by_partition.total()

    def document(self) -> dict[str, Any]:
        """Return the plan for a trigger as `backfill plan --json` prints it."""
        fates = Counter(f"{one.fate} {one.reason}".strip() for one in self.previewed)
        return {
            "deliveries": self.deliveries,
            "known": {reason.value: count for reason, count in self.known.most_common()},
            "to_send": self.left,
            "requests": self.requests,
            "sample": dict(fates.most_common()),
            "problems": self.problems,
        }


@dataclass(slots=True)
class JobPlan:
    """The plan of a backfill: what its rows would become.

    Args:
        seconds: The duration at the allowed rate; a machine may need longer.
    """

    spec: Spec
    result: Published = field(default_factory=Published)
    seconds: float = 0.0
    triggers: dict[str, TriggerPlan] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    bad_rows: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the plan as `backfill plan --json` prints it."""
        result = self.result
        return {
            **self.spec.document(),
            "rows": result.payloads,
            "events": result.events,
            "unmatched": result.unmatched,
            "refused": result.refused,
            "refused_by_reason": dict(self.reasons.most_common()),
            "bad_rows": self.bad_rows,
            "triggers": {name: one.document() for name, one in sorted(self.triggers.items())},
            "deliveries": sum(one.deliveries for one in self.triggers.values()),
            "known": sum(one.known.total() for one in self.triggers.values()),
            "requests": sum(one.requests for one in self.triggers.values()),
            "seconds_at_the_rate": round(self.seconds, 3),
            "bodies": self.bodies,
        }


class Planner:
    """Makes plans of backfills from their rows.

    Args:
        client: Only read from.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._publisher = Publisher(client, settings, dry_run=True)
        self._names = Names(client)

    def plan(self, spec: Spec) -> Iterator[tuple[JobPlan, int]]:
        """Read all rows; after each block, yield the plan so far and the number of bytes read."""
        plan = JobPlan(spec)
        for piece in pieces_of(spec, self._settings):
            self._take(piece, plan)
            yield plan, piece.bytes_read
        self._conclude(plan)
        yield plan, spec.size

    def now_us(self) -> int:
        """Return the microseconds since 1970 by Redis' clock."""
        return self._publisher.now_us()

    def first(self, spec: Spec, count: int) -> list[Candidate]:
        """Return the first deliveries of a source in the order of its rows, over all triggers."""
        with closing(pieces_of(spec, self._settings)) as pieces:
            piece = next(pieces, None)
        if piece is None:
            return []
        deliveries = self._draft(list(piece.block.payloads()), spec).deliveries
        every = sorted((new.number, new) for group in deliveries.values() for new in group)
        return [
            Candidate(str(number), new.trigger, new.header, decode_profile(new.profile))
            for number, new in every[:count]
        ]

    def _take(self, piece: Piece, plan: JobPlan) -> None:
        draft = self._draft(list(piece.block.payloads()), plan.spec)
        result = draft.result
        plan.result += result
        plan.reasons.update(problem.reason.value for problem in result.problems)
        room = BAD_ROWS_SHOWN - len(plan.bad_rows)
        plan.bad_rows += (
            {
                "file": piece.file,
                "line": bad.line,
                "reason": bad.reason.value,
                "message": bad.message,
            }
            for bad in result.problems[: max(0, room)]
        )
        for address, deliveries in draft.deliveries.items():
            self._ask_ledger(PartitionKeys(*address), deliveries, plan)

    def _draft(self, rows: Sequence[Any], spec: Spec) -> Draft:
        return self._publisher.draft(rows, spec.membership, spec.options)

    def _ask_ledger(
        self, partition: PartitionKeys, deliveries: Sequence[NewDelivery], plan: JobPlan
    ) -> None:
        records = read_records(self._client, partition, [new.header.digest for new in deliveries])
        for new, record in zip(deliveries, records, strict=True):
            one = plan.triggers.setdefault(new.trigger, TriggerPlan())
            one.deliveries += 1
            why = judge(record, self._ledger_event(new)) if record.items else None
            if why:
                one.known[why] += 1
                continue
            one.by_partition[partition.number] += 1
            if len(one.sample) < SAMPLE:
                name = str(len(one.sample))
                profile = decode_profile(new.profile)
                one.sample.append(Candidate(name, new.trigger, new.header, profile))

    def _ledger_event(self, new: NewDelivery) -> LedgerEvent:
        header = new.header
        return LedgerEvent(
            header.time_us,
            header.direction,
            self._names.number_of_trigger(new.trigger),
            self._names.number_of(header.audience),
            state=header.state,
            again=header.again,
        )

    def _conclude(self, plan: JobPlan) -> None:
        by_destination: Counter[str] = Counter()
        for name, one in plan.triggers.items():
            one.previewed = preview(one.sample, self._settings, now_us=self.now_us())
            one.problems = dict(Counter(self._deaths(one)).most_common())
            one.requests = self._requests(name, one)
            by_destination[self._settings.triggers[name].destination] += one.requests
            first = next((each for each in one.previewed if each.shaped), None)
            if first:
                body = hidden(first.sent) if first.request else None
                plan.bodies.append({"trigger": name, "body": body})
        plan.seconds = max(
            (
                60 * requests / self._settings.destinations[name].rate_per_minute
                for name, requests in by_destination.items()
            ),
            default=0.0,
        )

    def _deaths(self, one: TriggerPlan) -> Iterator[str]:
        """Yield why events of the sample would be dead, without anybody's values."""
        told: dict[tuple[str, str], str] = {}
        for candidate, previewed in zip(one.sample, one.previewed, strict=True):
            if previewed.fate == "dead":
                kind = (previewed.safe_message, candidate.header.audience)
                if kind not in told:
                    told[kind] = self._explained(candidate, *kind)
                yield told[kind]

    def _explained(self, candidate: Candidate, failure: str, audience: str) -> str:
        trigger = self._settings.triggers[candidate.trigger]
        if failure_without_id(candidate, trigger, self._settings, now_us=self.now_us()):
            return in_want_of_id(failure, [audience], self._settings.sync.values())
        return failure

    def _requests(self, name: str, one: TriggerPlan) -> int:
        """Estimate the requests: each carries as many users of one partition as fit."""
        api = api_of(self._settings, self._settings.triggers[name])
        sizes = [
            len(orjson.dumps(user))
            for each in one.previewed
            if each.shaped
            for user in each.shaped.users
        ]
        if one.previewed and not sizes:
            return 0
        largest = api.max_users
        if sizes:
            largest = max(1, min(largest, int(api.max_bytes * len(sizes) / sum(sizes))))
        return sum(math.ceil(count / largest) for count in one.by_partition.values())


_BAD_ROWS_SHOWN: Final = 10
_MINUTE: Final = 60


def plan(options: RowOptions, relay: Reads) -> Result:
    """Return the plan of a backfill, as `segrelay backfill plan` prints it."""
    found = _planned(options, relay.settings, relay.client)
    problems = (
        f"{name}: {count:,} of {len(one.sample):,} would be dead: {problem}"
        for name, one in sorted(found.triggers.items())
        for problem, count in one.problems.items()
    )
    bodies = (
        f"\nwould be sent for {body['trigger']}, masked:\n"
        + orjson.dumps(body["body"], option=orjson.OPT_INDENT_2).decode()
        for body in found.bodies
    )
    return Result(found.document(), *_lines(found), _triggers(found), *bodies, notes=problems)


def _planned(options: RowOptions, settings: Settings, client: Redis) -> JobPlan:
    spec = spec_of(options, settings, client)
    found = JobPlan(spec)
    shown = 0
    with progress("read, in bytes" if spec.size else "read, in rows", spec.size or None) as bar:
        for found, read_bytes in Planner(client, settings).plan(spec):
            done = read_bytes if spec.size else found.result.payloads
            bar(done - shown)
            shown = done
    return found


def _lines(plan: JobPlan) -> Iterator[str]:
    found = plan.document()
    if found["audience"]:
        yield f"{found['on']} of {found['audience']} as of {found['as_of']}"
    result = plan.result
    yield (
        f"{plural(result.payloads, 'row')}: {plural(result.events, 'event')},"
        f" {result.unmatched:,} unmatched, {result.refused:,} refused"
    )
    for reason, count in found["refused_by_reason"].items():
        yield f"  refused {reason}: {count:,}"
        if reason == Refusal.OLDER_THAN_LEDGER:
            yield "    who left after that may be forgotten; --older-than-ledger accepts them"
    for bad in plan.bad_rows[:_BAD_ROWS_SHOWN]:
        yield "  {file}:{line}: {reason}: {message}".format_map(bad)
    if result.refused > _BAD_ROWS_SHOWN:
        yield "  …; --json tells up to 1,000"
    yield (
        f"{plural(found['deliveries'], 'delivery', 'deliveries')}, {found['known']:,} of them known"
        f" to the ledger; about {plural(found['requests'], 'request')},"
        f" {_duration(plan.seconds)} at the allowed rate"
    )
    journeys = "starts no journeys" if plan.spec.options.skip_hook else "may start journeys"
    yield f"Insider {journeys} for these people"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:,.0f} s"
    return f"{seconds / _MINUTE:,.0f} min"


def _triggers(plan: JobPlan) -> Table:
    rows = []
    for name, one in sorted(plan.triggers.items()):
        found = one.document()
        sample = ", ".join(f"{what} {count}" for what, count in found["sample"].items())
        rows.append(
            (
                name,
                one.deliveries,
                ", ".join(f"{why} {count:,}" for why, count in found["known"].items()) or "-",
                one.left,
                one.requests,
                sample,
            )
        )
    columns: tuple[TableColumn, ...] = (*number_columns("deliveries"), *text_columns("known"))
    columns += (*number_columns("to send", "requests"), *text_columns("of 100 rendered"))
    return Table(("trigger", *columns), rows)


PEOPLE: Final = 3
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 2.0
"""Pause between two readings in seconds: Insider shows a write some time after it."""


@dataclass(frozen=True, slots=True)
class FirstPerson:
    """One of the first people of a job, as the destination holds them.

    Args:
        verdicts: A verdict on each sent attribute: as sent, differs, not there.
        is_judged: True if it counts for the verdict on a canary. What is not Insider can't be read
            back, and what an exit has sent is not there by right.
    """

    trigger: str
    outcome: str
    verdicts: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    is_judged: bool = True
    sent: Any = field(default=None, repr=False)
    found: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def is_there(self) -> bool:
        """Say whether all that was sent of the person is there; a skipped one needs nothing."""
        if not self.is_judged or self.outcome.startswith("skipped"):
            return True
        is_as_sent = set(self.verdicts.values()) <= {AS_SENT}
        return self.outcome == "sent" and not self.problem and is_as_sent

    def document(self, *, reveal: bool) -> dict[str, Any]:
        """Return the JSON document; values only if they are to be revealed."""
        told: dict[str, Any] = {
            "trigger": self.trigger,
            "outcome": self.outcome,
            "attributes": self.verdicts,
            "problem": self.problem or None,
        }
        return told | {"sent": self.sent, "found": self.found} if reveal else told


def read_first_people(client: Redis, settings: Settings, spec: Spec) -> Iterator[FirstPerson]:
    """Yield the first people of a job; nothing for standard input, which can't be read again."""
    if STANDARD_INPUT in spec.sources:
        return
    planner = Planner(client, settings)
    for candidate in planner.first(spec, PEOPLE):
        trigger = settings.triggers[candidate.trigger]
        (previewed,) = preview([candidate], settings, now_us=planner.now_us())
        if previewed.shaped is None:
            yield FirstPerson(trigger.name, f"{previewed.fate} {previewed.reason}")
        else:
            yield _read(previewed.shaped, trigger, settings)


def _read(shaped: Shaped, trigger: Trigger, settings: Settings) -> FirstPerson:
    for tries_left in reversed(range(_TRIES)):
        read = read_sent(shaped, trigger, settings)
        verdicts = {} if read.problem else read.verdicts(shaped)
        if read.problem or not tries_left or set(verdicts.values()) == {AS_SENT}:
            break
        time.sleep(_PAUSE_SECONDS)
    problem = read.problem
    if not problem and read.attributes is None:
        problem = "Insider does not know this person (yet)."
    is_judged = settings.destinations[trigger.destination].api == "insider" and trigger.on != "exit"
    return FirstPerson(
        trigger.name, "sent", verdicts, problem, is_judged, shaped.users, read.attributes
    )

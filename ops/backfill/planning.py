"""`segrelay backfill plan`: count from its rows what a backfill would do, and write nothing."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from segrelay.ops.backfill.job_request import RowOptions, progress_of_rows, spec_of
from segrelay.ops.state.opened import Reads
from segrelay.ops.state.person import Names, read_records
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.tables import TableColumns, number_columns, text_columns
from segrelay.producer.backfill.jobs import Spec
from segrelay.producer.backfill.publishing import Piece
from segrelay.producer.backfill.reading import pieces_of
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import Published
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
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import Refusal, Skip
from segrelay.worker.core.ledger import LedgerEvent, judge
from segrelay.worker.destinations.registry import api_of

SAMPLE: Final = 100
"""The number of deliveries of each trigger that are rendered to estimate the size of a user."""
BAD_ROWS_KEPT: Final = 1_000
_BAD_ROWS_SHOWN: Final = 10
_MINUTE: Final = 60


@dataclass(slots=True)
class TriggerPlan:
    """The plan of a backfill for one trigger.

    Args:
        known: The number of deliveries that the ledger would skip, by reason.
        by_partition: The number of those that would be sent, by partition.
        problems: The number of the sample's events that would be dead, by the reason and what to
            do.
    """

    known: Counter[Skip] = field(default_factory=Counter)
    by_partition: Counter[int] = field(default_factory=Counter)
    sample: list[Candidate] = field(default_factory=list)
    previewed: list[Previewed] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    requests: int = 0

    def document(self) -> dict[str, Any]:
        """Return the plan for a trigger as `backfill plan --json` prints it."""
        fates = Counter(f"{one.fate} {one.reason}".strip() for one in self.previewed)
        to_send = self.by_partition.total()
        return {
            "deliveries": self.known.total() + to_send,
            "known": {reason.value: count for reason, count in self.known.most_common()},
            "to_send": to_send,
            "requests": self.requests,
            "sample": dict(fates.most_common()),
            "problems": dict(self.problems.most_common()),
        }


class JobPlan:
    """The plan of a backfill: what its rows would become.

    Args:
        client: The client of Redis, from which the plan only reads.
    """

    def __init__(self, client: Redis, settings: Settings, spec: Spec) -> None:
        self.spec = spec
        self.result = Published()
        self.triggers: defaultdict[str, TriggerPlan] = defaultdict(TriggerPlan)
        self.bad_rows: list[dict[str, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self._reasons: Counter[str] = Counter()
        self._seconds = 0.0
        self._client = client
        self._settings = settings
        self._publisher = Publisher(client, settings, dry_run=True)
        self._names = Names(client)

    def take(self, piece: Piece) -> None:
        """Count what a block would become."""
        rows = piece.block.payloads()
        draft = self._publisher.draft(rows, self.spec.membership, self.spec.options)
        problems = draft.result.problems
        self.result += draft.result
        self._reasons.update(problem.reason.value for problem in problems)
        self.bad_rows += (
            {
                "file": piece.file,
                "line": bad.line,
                "reason": bad.reason.value,
                "message": bad.message,
            }
            for bad in problems[: max(0, BAD_ROWS_KEPT - len(self.bad_rows))]
        )
        for address, deliveries in draft.deliveries.items():
            self._ask_ledger(PartitionKeys(*address), deliveries)

    def _ask_ledger(self, partition: PartitionKeys, deliveries: Sequence[NewDelivery]) -> None:
        records = read_records(self._client, partition, [new.header.digest for new in deliveries])
        for new, record in zip(deliveries, records, strict=True):
            header, one = new.header, self.triggers[new.trigger]
            names = self._names
            key = (names.number_of(header.audience), names.number_of_trigger(new.trigger))
            why = judge(record, LedgerEvent(header, key)) if record.items else None
            if why:
                one.known[why] += 1
                continue
            one.by_partition[partition.number] += 1
            if len(one.sample) < SAMPLE:
                name, profile = str(len(one.sample)), decode_profile(new.profile)
                one.sample.append(Candidate(name, new.trigger, header, profile))

    def conclude(self) -> None:
        """Render the samples, and reckon requests and the duration, when all rows were taken."""
        by_destination: Counter[str] = Counter()
        now_us = self._publisher.now_us()
        for name, one in self.triggers.items():
            one.previewed = preview(one.sample, self._settings, now_us=now_us)
            self._explain(name, one, now_us)
            one.requests = self._requests(name, one)
            by_destination[self._settings.triggers[name].destination] += one.requests
            first = next((each for each in one.previewed if each.shaped), None)
            if first:
                body = hidden(first.sent) if first.request else None
                self.bodies.append({"trigger": name, "body": body})
        self._seconds = max(
            (
                60 * requests / self._settings.destinations[name].rate_per_minute
                for name, requests in by_destination.items()
            ),
            default=0.0,
        )

    def _explain(self, name: str, one: TriggerPlan, now_us: int) -> None:
        """Count why events of the sample would be dead, without anybody's values."""
        dead: defaultdict[tuple[str, str], list[Candidate]] = defaultdict(list)
        for candidate, previewed in zip(one.sample, one.previewed, strict=True):
            if previewed.fate == "dead":
                dead[previewed.safe_message, candidate.header.audience].append(candidate)
        trigger, settings = self._settings.triggers[name], self._settings
        for (failure, audience), candidates in dead.items():
            problem = failure
            if failure_without_id(candidates[0], trigger, settings, now_us=now_us):
                problem = in_want_of_id(failure, [audience])
            one.problems[problem] += len(candidates)

    def _requests(self, name: str, one: TriggerPlan) -> int:
        """Estimate the requests: each carries as many users of one partition as fit."""
        api = api_of(self._settings, self._settings.triggers[name])
        shaped = [each.shaped for each in one.previewed if each.shaped]
        sizes = [len(orjson.dumps(user)) for each in shaped for user in each.users]
        if one.previewed and not sizes:
            return 0
        largest = api.max_users
        if sizes:
            largest = max(1, min(largest, int(api.max_bytes * len(sizes) / sum(sizes))))
        return sum(math.ceil(count / largest) for count in one.by_partition.values())

    def document(self) -> dict[str, Any]:
        """Return the plan as `backfill plan --json` prints it.

        The seconds are those at the allowed rate; a machine may need longer.
        """
        result = self.result
        return {
            **self.spec.document(),
            "rows": result.payloads,
            "events": result.events,
            "unmatched": result.unmatched,
            "refused": result.refused,
            "refused_by_reason": dict(self._reasons.most_common()),
            "bad_rows": self.bad_rows,
            "triggers": {name: one.document() for name, one in sorted(self.triggers.items())},
            "deliveries": sum(
                one.known.total() + one.by_partition.total() for one in self.triggers.values()
            ),
            "known": sum(one.known.total() for one in self.triggers.values()),
            "requests": sum(one.requests for one in self.triggers.values()),
            "seconds_at_the_rate": round(self._seconds, 3),
            "bodies": self.bodies,
        }


def plan(options: RowOptions, relay: Reads) -> Result:
    """Return the plan of a backfill, as `segrelay backfill plan` prints it."""
    client, settings = relay.client, relay.settings
    spec = spec_of(options, settings, client)
    found = JobPlan(client, settings, spec)
    with progress_of_rows(spec) as advance:
        for piece in pieces_of(spec, settings):
            found.take(piece)
            advance(piece.bytes_read, found.result.payloads)
        found.conclude()
    document = found.document()
    problems = (
        f"{name}: {count:,} of {len(found.triggers[name].sample):,} would be dead: {problem}"
        for name, one in document["triggers"].items()
        for problem, count in one["problems"].items()
    )
    bodies = (
        f"\nwould be sent for {body['trigger']}, masked:\n"
        + orjson.dumps(body["body"], option=orjson.OPT_INDENT_2).decode()
        for body in found.bodies
    )
    columns: TableColumns = (
        *number_columns("deliveries"),
        *text_columns("known"),
        *number_columns("to send", "requests"),
        *text_columns("of 100 rendered"),
    )
    rows = [
        (
            name,
            one["deliveries"],
            ", ".join(f"{why} {count:,}" for why, count in one["known"].items()) or "-",
            one["to_send"],
            one["requests"],
            ", ".join(f"{what} {count}" for what, count in one["sample"].items()),
        )
        for name, one in document["triggers"].items()
    ]
    table = Table(("trigger", *columns), rows)
    return Result(document, *_lines(document), table, *bodies, notes=problems)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    if found["audience"]:
        yield f"{found['on']} of {found['audience']} as of {found['as_of']}"
    yield (
        f"{plural(found['rows'], 'row')}: {plural(found['events'], 'event')},"
        f" {found['unmatched']:,} unmatched, {found['refused']:,} refused"
    )
    for reason, count in found["refused_by_reason"].items():
        yield f"  refused {reason}: {count:,}"
        if reason == Refusal.OLDER_THAN_LEDGER:
            yield "    who left after that may be forgotten; --older-than-ledger accepts them"
    for bad in found["bad_rows"][:_BAD_ROWS_SHOWN]:
        yield "  {file}:{line}: {reason}: {message}".format_map(bad)
    if found["refused"] > _BAD_ROWS_SHOWN:
        yield "  …; --json tells up to 1,000"
    seconds = found["seconds_at_the_rate"]
    duration = f"{seconds:,.0f} s" if seconds < _MINUTE else f"{seconds / _MINUTE:,.0f} min"
    yield (
        f"{plural(found['deliveries'], 'delivery', 'deliveries')}, {found['known']:,} of them known"
        f" to the ledger; about {plural(found['requests'], 'request')},"
        f" {duration} at the allowed rate"
    )
    journeys = "starts no journeys" if found["skip_hook"] else "may start journeys"
    yield f"Insider {journeys} for these people"

"""`segrelay quarantine`: list, show, replay or discard events that could not be placed."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby, islice
from typing import Annotated, Any, Final

import orjson
import typer

from segrelay.ops.kept import (
    ExtentOptions,
    Fate,
    KeptOptions,
    Refusals,
    Work,
    discard_chosen,
    replay_chosen,
    show_one,
)
from segrelay.ops.send.sending import WaitOptions
from segrelay.ops.state.acts import Acts, Asks, Reads
from segrelay.ops.state.waiting import Filter
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import shown_ms
from segrelay.ops.terminal.options import Force, Ids, Reveal
from segrelay.ops.terminal.tables import TableColumns, number_columns, text_columns
from segrelay.producer.events.payloads import Refused
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.publishing.quarantine import Quarantine, QuarantineRecord
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.printable import MASK, masked_payload, plural
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import ALL_AUDIENCES
from segrelay.worker.contract.words import Refusal

app = typer.Typer(help="See, replay or discard events that could not be placed.")

_RECORDS_A_CALL: Final = 500
_PUBLIC: Final = ("id", "audience", "reason", "message", "lane", "times")
_WHY: Final = {
    Refusal.OLDER_THAN_LEDGER.value: "they are older than what the ledger remembers; --force takes"
    " them"
}


class QuarantinedRecords(Refusals[QuarantineRecord]):
    """The records of the quarantine."""

    command = "quarantine"
    nouns = ("record", "records")
    verb = "placed"
    why_left_out = _WHY

    @cached_property
    def quarantine(self) -> Quarantine:
        """Return the quarantine in Redis."""
        return Quarantine(self.client)

    def find(self, wanted: Filter) -> Iterator[QuarantineRecord]:
        """Yield the records that match, in no order."""
        found = self.quarantine.records(wanted.ids)
        return (record for record in found if matches(record, wanted))

    def document(self, one: QuarantineRecord, *, reveal: bool) -> dict[str, Any]:
        """Return a record with its payload, masked unless revealed."""
        text = self.quarantine.text(one.id) or b""
        try:
            value = orjson.loads(text)
            payload = value if reveal else masked_payload(value)
        except orjson.JSONDecodeError:
            payload = text.decode(errors="replace") if reveal else f"{MASK} ({len(text)} bytes)"
        return about(one) | {"payload": payload}

    def replay(self, wanted: Filter) -> Work:
        """Return the work of placing the matching records that can be placed now.

        The others stay as they are. A record leaves only when its deliveries are in Redis: a crash
        in between makes it come twice, and the ledger settles the second as a duplicate.
        """
        records = sorted(self.find(wanted), key=lambda record: record.lane)
        ids = frozenset(record.id for record in records)
        publisher = Publisher(self.client, self.settings)
        left_out: Counter[str] = Counter()

        def steps() -> Iterator[int]:
            left_out.clear()
            there = sorted(self.quarantine.records(ids), key=lambda record: record.lane)
            for lane, members in groupby(there, key=lambda record: record.lane):
                while part := list(islice(members, _RECORDS_A_CALL)):
                    events: list[Event] = []
                    placed: list[str] = []
                    for record in part:
                        found, reason, _ = self._judge(publisher, record, wanted)
                        if reason:
                            left_out[reason] += 1
                            continue
                        events += found
                        placed.append(record.id)
                    if events:
                        self.published += publisher.publish_retried(events, lane)
                    yield self.quarantine.remove(placed)

        def preview() -> Iterator[Fate]:
            dry = Publisher(self.client, self.settings, dry_run=True)
            for record in records:
                _, reason, message = self._judge(dry, record, wanted)
                yield Fate(record.id, "kept" if reason else "placed", reason, message)

        return Work(len(ids), steps if ids else tuple, left_out, ("placed", "kept"), preview)

    def result(self, work: Work, done: int) -> Result:
        """Return how many records were placed, and why the others stay."""
        kept, accepted = work.left_out.total(), self.published.accepted
        document = {
            "tried": done + kept,
            "placed": done,
            "accepted": accepted,
            "kept": kept,
            "kept_by_reason": dict(work.left_out),
        }
        deliveries = plural(accepted, "delivery", "deliveries")
        told = f"{done:,} of {done + kept:,} placed, {deliveries} accepted"
        left_out = work.left_out.items()
        return Result(document, told, *(f"{n:,} stay: {_WHY.get(why, why)}" for why, n in left_out))

    def discard(self, wanted: Filter) -> Work:
        """Return the work of removing the records that match now."""
        ids = [record.id for record in self.find(wanted)]
        return Work(len(ids), lambda: [self.quarantine.remove(ids)])

    def _judge(
        self, publisher: Publisher, record: QuarantineRecord, wanted: Filter
    ) -> tuple[list[Event], str, str]:
        """Return the events of a record; else the reason why it can't be placed, with a message."""
        text = self.quarantine.text(record.id)
        if not text:
            return [], record.reason, record.message
        options = PublishOptions(
            record.lane,
            state=record.state,
            skip_hook=record.skip_hook,
            older_than_ledger=wanted.older_than_ledger,
        )
        found = publisher.read_again(text, options, arrived_us=record.first_seen_ms * 1_000)
        for item in found:
            if isinstance(item, Refused):
                return [], item.reason.value, item.message
        events = [item for item in found if isinstance(item, Event)]
        return (events, "", "") if events else ([], record.reason, record.message)


def matches(record: QuarantineRecord, wanted: Filter) -> bool:
    """Say whether a filter matches a record."""
    return (
        (not wanted.ids or record.id in wanted.ids)
        and wanted.audience in ("", record.audience)
        and wanted.reason in ("", record.reason)
        and record.last_seen_ms >= wanted.since_ms
        and (not wanted.until_ms or record.last_seen_ms < wanted.until_ms)
    )


def about(record: QuarantineRecord) -> dict[str, Any]:
    """Return what is known of a record without its payload."""
    return {name: getattr(record, name) for name in _PUBLIC} | {
        "first_seen_at": shown_ms(record.first_seen_ms),
        "last_seen_at": shown_ms(record.last_seen_ms),
    }


@app.command("list")
def list_records(
    *,
    options: KeptOptions,
    limit: Annotated[
        int, typer.Option(help="With --json, print at most this many records.", min=1)
    ] = 1_000,
    relay: Reads,
) -> Result:
    """List the quarantined records by audience and reason; with --json, record by record."""
    store = QuarantinedRecords(relay.client, relay.settings)
    records = list(store.find(options.chosen(relay.client, relay.settings, None)))
    totals = store.quarantine.totals()
    columns: TableColumns = (
        *number_columns("records", "times"),
        "last seen",
        "sample",
        *text_columns("what"),
    )
    rows = [
        (group["audience"] or "-", *counts, shown_ms(seen_ms), sample, message)
        for group in groups_of(records, relay.settings)
        for _, *counts, seen_ms, sample, message in [group.values()]
    ]
    dropped = f"{totals.dropped:,} older ones went because there was too much."
    return Result(
        [about(one) for one in sorted(records, key=lambda one: -one.last_seen_ms)[:limit]],
        Table(("audience", "reason", *columns), rows),
        f"{plural(totals.records, 'record')}, {totals.bytes / 1e6:,.1f} MB",
        notes=[dropped] if totals.dropped else (),
    )


def groups_of(records: Iterable[QuarantineRecord], settings: Settings) -> list[dict[str, Any]]:
    """Return what is known of the records of each audience and reason, the most frequent first.

    The newest record of each is the sample.
    """
    found: defaultdict[tuple[str, str], list[QuarantineRecord]] = defaultdict(list)
    for record in records:
        found[record.audience, record.reason].append(record)
    samples = [
        (max(group, key=lambda record: record.last_seen_ms), group) for group in found.values()
    ]
    groups = [
        {
            "audience": sample.audience,
            "reason": sample.reason,
            "records": len(group),
            "times": sum(record.times for record in group),
            "last_seen_ms": sample.last_seen_ms,
            "sample": sample.id,
            "message": sample.message + _did_you_mean(sample, settings),
        }
        for sample, group in samples
    ]
    return sorted(groups, key=lambda group: (-group["times"], group["audience"]))


def _did_you_mean(record: QuarantineRecord, settings: Settings) -> str:
    """Return a hint at a configured audience with a similar slug; "" = there is none."""
    named = {name for each in settings.triggers.values() for name in each.audiences}
    if record.reason != Refusal.NO_TRIGGER or record.audience in named - {ALL_AUDIENCES}:
        return ""
    close = difflib.get_close_matches(record.audience, named - {ALL_AUDIENCES}, n=1)
    return f" A trigger names '{close[0]}': is it that?" if close else ""


@app.command()
def show(
    record_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reveal: Reveal = False,
    relay: Reads,
) -> Result:
    """Show one record with its payload; profile fields are masked."""
    store = QuarantinedRecords(relay.client, relay.settings)
    return show_one(store, record_id, reveal=reveal)


@app.command()
def replay(
    ids: Ids = None,
    *,
    options: KeptOptions,
    extent: ExtentOptions,
    force: Force = False,
    waiting: WaitOptions,
    relay: Acts,
) -> Result:
    """Try again to place records that may have a trigger, an identity or a known audience by now.

    What still can't be placed stays where it is. So do events that are older than what the ledger
    remembers (delivery.ledger_retention): somebody may have left since without a trace.
    """
    store = QuarantinedRecords(relay.client, relay.settings)
    return replay_chosen(relay, store, options, extent, ids, force=force, waiting=waiting)


@app.command()
def discard(ids: Ids = None, *, options: KeptOptions, extent: ExtentOptions, relay: Asks) -> Result:
    """Remove records from the quarantine for good."""
    store = QuarantinedRecords(relay.client, relay.settings)
    return discard_chosen(relay, store, options, extent, ids)

"""`segrelay quarantine`: list, show, replay or discard events that could not be placed."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby, islice
from typing import Annotated, Any, ClassVar, Final

import orjson
import typer

from segrelay.ops.kept import (
    ExtentOptions,
    Fate,
    Filter,
    KeptOptions,
    Work,
    carry_out,
    discard_chosen,
    preview_of,
    refuse_unknown,
    show_one,
)
from segrelay.ops.samples import Payload, keep_payload
from segrelay.ops.send.sending import WaitOptions
from segrelay.ops.state.acts import Acts, Asks, Reads
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import shown_ms
from segrelay.ops.terminal.options import Force, Ids, Reveal
from segrelay.ops.terminal.tables import TableColumns, number_columns, text_columns
from segrelay.producer.events.payloads import Refused
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import Published, PublishOptions
from segrelay.producer.publishing.quarantine import Quarantine, QuarantineRecord
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.masking import MASK, masked_payload
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import ALL_AUDIENCES, Settings
from segrelay.worker.contract.words import Refusal

app = typer.Typer(help="See, replay or discard events that could not be placed.")

FATES: Final = ("placed", "kept")
_RECORDS_A_CALL: Final = 500
_WHY: Final = {
    Refusal.OLDER_THAN_LEDGER.value: "they are older than what the ledger remembers; --force takes"
    " them"
}


@dataclass
class QuarantinedRecords:
    """The records of the quarantine, as a store of kept things.

    Attributes:
        published: The result of its replays.
    """

    client: Redis
    settings: Settings
    command: ClassVar[str] = "quarantine"
    nouns: ClassVar[tuple[str, str]] = ("record", "records")
    published: Published = field(default_factory=Published, init=False)

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
        return about(one) | {"payload": _shown(text, reveal=reveal)}

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
                options = PublishOptions(lane, older_than_ledger=wanted.older_than_ledger)
                while part := list(islice(members, _RECORDS_A_CALL)):
                    yield self._publish_again(publisher, part, options, left_out)

        def preview() -> Iterator[Fate]:
            dry = Publisher(self.client, self.settings, dry_run=True)
            for record in records:
                options = PublishOptions(record.lane, older_than_ledger=wanted.older_than_ledger)
                _, reason, message = self._judge(dry, record, options)
                yield Fate(record.id, "kept" if reason else "placed", reason, message)

        return Work(len(ids), steps if ids else tuple, left_out, FATES, preview)

    def discard(self, wanted: Filter) -> Work:
        """Return the work of removing the records that match now."""
        ids = [record.id for record in self.find(wanted)]
        return Work(len(ids), lambda: [self.quarantine.remove(ids)])

    def _publish_again(
        self,
        publisher: Publisher,
        records: Sequence[QuarantineRecord],
        options: PublishOptions,
        left_out: Counter[str],
    ) -> int:
        events: list[Event] = []
        placed: list[str] = []
        for record in records:
            found, reason, _ = self._judge(publisher, record, options)
            if reason:
                left_out[reason] += 1
                continue
            events += found
            placed.append(record.id)
        if events:
            self.published += publisher.publish_retried(events, options.lane)
        return self.quarantine.remove(placed)

    def _judge(
        self, publisher: Publisher, record: QuarantineRecord, options: PublishOptions
    ) -> tuple[list[Event], str, str]:
        """Return the events of a record; else the reason why it can't be placed, with a message."""
        text = self.quarantine.text(record.id)
        if not text:
            return [], record.reason, record.message
        found = publisher.read_again(
            text,
            options._replace(state=record.state, skip_hook=record.skip_hook),
            arrived_us=record.first_seen_ms * 1_000,
        )
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
    return {
        "id": record.id,
        "audience": record.audience,
        "reason": record.reason,
        "message": record.message,
        "lane": record.lane,
        "times": record.times,
        "first_seen_at": shown_ms(record.first_seen_ms),
        "last_seen_at": shown_ms(record.last_seen_ms),
    }


def _shown(text: bytes, *, reveal: bool) -> Any:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.decode(errors="replace") if reveal else f"{MASK} ({len(text)} bytes)"
    return value if reveal else masked_payload(value)


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
    dropped = f"{totals.dropped:,} older ones went because there was too much."
    return Result(
        [about(one) for one in sorted(records, key=lambda one: -one.last_seen_ms)[:limit]],
        Table(("audience", "reason", *columns), _rows(records, relay.settings)),
        f"{plural(totals.records, 'record')}, {totals.bytes / 1e6:,.1f} MB",
        notes=[dropped] if totals.dropped else (),
    )


def _rows(records: Iterable[QuarantineRecord], settings: Settings) -> list[tuple[object, ...]]:
    """Return a row for the records of each audience and reason, the most frequent first."""
    found: defaultdict[tuple[str, str], list[QuarantineRecord]] = defaultdict(list)
    for record in records:
        found[record.audience, record.reason].append(record)
    groups = [group_of(group, settings) for group in found.values()]
    groups.sort(key=lambda one: (-one["times"], one["audience"]))
    return [
        (
            one["audience"] or "-",
            *(one[name] for name in ("reason", "records", "times")),
            shown_ms(one["last_seen_ms"]),
            one["sample"],
            one["message"],
        )
        for one in groups
    ]


def group_of(group: Sequence[QuarantineRecord], settings: Settings) -> dict[str, Any]:
    """Return what is known of records of one audience and reason, with the newest as sample."""
    sample = max(group, key=lambda record: record.last_seen_ms)
    return {
        "audience": sample.audience,
        "reason": sample.reason,
        "records": len(group),
        "times": sum(record.times for record in group),
        "last_seen_ms": sample.last_seen_ms,
        "sample": sample.id,
        "message": sample.message + _did_you_mean(sample, settings),
    }


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
    payload: Payload = False,
    relay: Reads,
) -> Result:
    """Show one record with its payload; profile fields are masked."""
    store = QuarantinedRecords(relay.client, relay.settings)
    if payload:
        refuse_unknown(store, [record_id])
        return keep_payload(
            relay, record_id, _shown(store.quarantine.text(record_id) or b"", reveal=True)
        )
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
    options.refuse_accidental_all(ids, everything=extent.everything or extent.dry_run)
    store = QuarantinedRecords(relay.client, relay.settings)
    refuse_unknown(store, ids)
    waiting.refuse_wrong(dry_run=extent.dry_run)
    work = store.replay(options.chosen(relay.client, relay.settings, ids, force=force))
    if extent.dry_run:
        return preview_of(store, work)
    extent.refuse_more(work.count, store.nouns)
    placed = carry_out(relay, work, "placed", **asdict(options), ids=ids)
    kept = work.left_out.total()
    document = {
        "tried": placed + kept,
        "placed": placed,
        "accepted": store.published.accepted,
        "kept": kept,
        "kept_by_reason": dict(work.left_out),
    }
    accepted = plural(store.published.accepted, "delivery", "deliveries")
    told = f"{placed:,} of {placed + kept:,} placed, {accepted} accepted"
    stays = (f"{n:,} stay: {_WHY.get(why, why)}" for why, n in work.left_out.items())
    all_settled = waiting.wait(relay.client, relay.settings, store.published)
    return Result(document, told, *stays, exit_code=0 if all_settled else 1)


@app.command()
def discard(ids: Ids = None, *, options: KeptOptions, extent: ExtentOptions, relay: Asks) -> Result:
    """Remove records from the quarantine for good."""
    store = QuarantinedRecords(relay.client, relay.settings)
    refuse_unknown(store, ids)
    return discard_chosen(relay, store, options, extent, ids)

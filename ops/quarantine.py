"""`segrelay quarantine`: list, replay or discard events that could not be placed."""

from __future__ import annotations

import difflib
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import orjson
import typer

from segrelay.ops.dead_letters.files import MASK, masked_profile, public_only
from segrelay.ops.state.acts import Because, Doing, act_of, perform
from segrelay.ops.state.opened import opened
from segrelay.ops.terminal.console import (
    confirmed,
    mention,
    print_json,
    print_result,
    say,
    say_fields,
    table,
)
from segrelay.ops.terminal.moments import parse_moment_ms, shown_ms
from segrelay.ops.terminal.options import All, FilterOptions, Force, Ids, Json, Reveal, Yes, spread
from segrelay.ops.terminal.tables import number_columns, text_columns
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.quarantine import Quarantine, QuarantineRecord, Selection
from segrelay.producer.retrying import Retried, retry_records
from segrelay.worker.contract.settings import ALL_AUDIENCES, Settings
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import UsageWrong

app = typer.Typer()


_WHY: Final = {
    Refusal.OLDER_THAN_LEDGER.value: "they are older than what the ledger remembers; --force takes"
    " them"
}


@dataclass(frozen=True, slots=True)
class RecordOptions(FilterOptions):
    """Options that narrow each other; none means all records."""

    audience: Annotated[str, typer.Option(help="Only of this audience.")] = ""
    reason: Annotated[str, typer.Option(help="Only with this reason.")] = ""
    since: Annotated[
        str, typer.Option(help="Seen since 2026-11-24T10:00:00Z, or 2h for two hours ago.")
    ] = ""
    until: Annotated[str, typer.Option(help="Last seen before; written like --since.")] = ""

    def selection(self, ids: Iterable[str] = ()) -> Selection:
        """Return the filter that these options stand for."""
        known = {reason.value for reason in Refusal}
        if self.reason and self.reason not in known:
            raise UsageWrong(f"There is no reason '{self.reason}': {', '.join(sorted(known))}.")
        now = time.time_ns() // 1_000_000
        return Selection(
            frozenset(ids),
            self.audience,
            self.reason,
            since_ms=parse_moment_ms(self.since, "--since", now_ms=now),
            until_ms=parse_moment_ms(self.until, "--until", now_ms=now),
        )


@app.command("list")
@spread
def list_records(
    *,
    options: RecordOptions,
    limit: Annotated[
        int, typer.Option(help="With --json, print at most this many records.", min=1)
    ] = 1_000,
    as_json: Json = False,
) -> None:
    """List the quarantined records by audience and reason; with --json, record by record."""
    with opened() as (settings, client):
        quarantine = Quarantine(client)
        records = list(quarantine.records(options.selection()))
        totals = quarantine.totals()
    if as_json:
        records.sort(key=lambda one: -one.last_seen_ms)
        print_json([_document(record) for record in records[:limit]])
        return
    table(
        (
            "audience",
            "reason",
            *number_columns("records", "times"),
            "last seen",
            "sample",
            *text_columns("what"),
        ),
        _rows(records, settings),
    )
    say(f"{totals.records:,} records, {totals.bytes / 1e6:,.1f} MB")
    if totals.dropped:
        mention(f"{totals.dropped:,} older ones went because there was too much.")


@app.command()
def show(
    record_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """Show one record with its payload; profile fields are masked."""
    with opened() as (_, client):
        quarantine = Quarantine(client)
        found = next(quarantine.records(Selection(frozenset({record_id}))), None)
        text = quarantine.text(record_id)
    if found is None or text is None:
        raise UsageWrong(f"There is no record {record_id}; `segrelay quarantine list` has the ids.")
    document = _document(found) | {"payload": _shown(text, reveal=reveal)}
    if as_json:
        print_json(document)
    else:
        say_fields(document)


@app.command()
@spread
def replay(
    ids: Ids = None,
    *,
    options: RecordOptions,
    force: Force = False,
    everything: All = False,
    because: Because = "",
    as_json: Json = False,
) -> None:
    """Try again to place records that may have a trigger, an identity or a known audience by now.

    What still can't be placed stays where it is. So do events that are older than what the ledger
    remembers (delivery.ledger_retention): somebody may have left since without a trace.
    """
    options.refuse_accidental_all(ids, everything=everything)
    with opened() as (settings, client):
        publisher = Publisher(client, settings)
        selection = options.selection(ids or ())
        arguments = asdict(options) | {"ids": ids}
        act = act_of("quarantine replay", reason=because, arguments=arguments)

        def replayed(doing: Doing) -> Retried:
            source = Quarantine(client)
            retried = retry_records(publisher, source, selection, older_than_ledger=force)
            doing.count += retried.placed
            return retried

        retried = perform(client, act, replayed)
    document = {
        "tried": retried.tried,
        "placed": retried.placed,
        "accepted": retried.accepted,
        "kept": retried.tried - retried.placed,
        "kept_by_reason": retried.kept_by_reason,
    }
    told = (
        f"{retried.placed:,} of {retried.tried:,} placed, {retried.accepted:,} deliveries accepted"
    )
    stays = (f"{n:,} stay: {_WHY.get(why, why)}" for why, n in retried.kept_by_reason.items())
    print_result(document, told, *stays, as_json=as_json)


@app.command()
@spread
def discard(
    ids: Ids = None,
    *,
    options: RecordOptions,
    everything: All = False,
    yes: Yes = False,
    because: Because = "",
    as_json: Json = False,
) -> None:
    """Remove records from the quarantine for good."""
    options.refuse_accidental_all(ids, everything=everything)
    with opened() as (_, client):
        quarantine = Quarantine(client)
        chosen = [record.id for record in quarantine.records(options.selection(ids or ()))]
        if chosen:
            confirmed(f"Discard {len(chosen):,} records for good?", yes=yes)
        arguments = asdict(options) | {"ids": ids}
        act = act_of("quarantine discard", reason=because, arguments=arguments)

        def removed(doing: Doing) -> int:
            doing.count += quarantine.remove(chosen)
            return doing.count

        discarded = perform(client, act, removed)
    print_result({"discarded": discarded}, f"{discarded:,} records discarded", as_json=as_json)


def _document(record: QuarantineRecord) -> dict[str, Any]:
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


def _rows(records: Iterable[QuarantineRecord], settings: Settings) -> list[tuple[object, ...]]:
    """Return a row for the records of each audience and reason, the most frequent first."""
    found: defaultdict[tuple[str, str], list[QuarantineRecord]] = defaultdict(list)
    for record in records:
        found[record.audience, record.reason].append(record)
    rows = [(sum(record.times for record in group), group) for group in found.values()]
    rows.sort(key=lambda row: (-row[0], row[1][0].audience))
    return [_row(group, times, settings) for times, group in rows]


def _row(group: Sequence[QuarantineRecord], times: int, settings: Settings) -> tuple[object, ...]:
    sample = max(group, key=lambda record: record.last_seen_ms)
    return (
        sample.audience or "-",
        sample.reason,
        len(group),
        times,
        shown_ms(sample.last_seen_ms),
        sample.id,
        sample.message + _did_you_mean(sample, settings),
    )


def _did_you_mean(record: QuarantineRecord, settings: Settings) -> str:
    """Return a hint at a configured audience with a similar slug; "" = there is none."""
    named = {name for each in settings.triggers.values() for name in each.audiences}
    if record.reason != Refusal.NO_TRIGGER or record.audience in named - {ALL_AUDIENCES}:
        return ""
    close = difflib.get_close_matches(record.audience, named - {ALL_AUDIENCES}, n=1)
    return f" A trigger names '{close[0]}': is it that?" if close else ""


def _shown(text: bytes, *, reveal: bool) -> Any:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.decode(errors="replace") if reveal else f"{MASK} ({len(text)} bytes)"
    return value if reveal else masked(value)


def _meta_shown(around: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an envelope that describe the event and not the person."""
    meta = {"meta": public_only(around["meta"])} if "meta" in around else {}
    public: dict[str, Any] = public_only(around)
    return public | meta


def masked(payload: Any) -> Any:
    """Return a payload whose profile fields are masked; names, times and audiences stay."""
    if isinstance(payload, dict) and isinstance(payload.get("data"), dict):
        around = {key: value for key, value in payload.items() if key != "data"}
        return _meta_shown(around) | {"data": masked_profile(payload["data"])}
    return masked_profile(payload)

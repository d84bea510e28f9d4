"""`segrelay quarantine`: what could not be placed, and what to do about it."""

from __future__ import annotations

import difflib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
import typer
from redis import Redis

from ops.letters.masking import MASK, hidden
from ops.terminal.asking import confirmed
from ops.terminal.console import note, print_json, say, table
from ops.terminal.moments import parse_moment_ms, shown_ms
from ops.terminal.options import All, Ids, Json, Reveal, Yes, spread
from ops.terminal.tables import number_columns, text_columns
from producer.events.payloads import SEGMENT_EVENTS
from producer.publish import Publisher
from producer.publishing.quarantine import Quarantine, QuarantineRecord, Selection
from producer.retrying import TOO_OLD, LedgerReach, retry_records
from worker.contract.printable import printable
from worker.contract.redis.connection import connect, resolve_url, wait_ready
from worker.contract.settings import ALL_AUDIENCES, Settings, load_settings
from worker.contract.words import Refusal
from worker.errors import UsageWrong

app = typer.Typer()

_ENVELOPE: Final = frozenset({"meta", "specversion", "type", "time", "source"})


_WHY: Final = {TOO_OLD: "they came longer ago than the ledger remembers; --force takes them"}


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Options that narrow each other; none means all records."""

    audience: Annotated[str, typer.Option(help="Only of this audience.")] = ""
    reason: Annotated[str, typer.Option(help="Only with this reason.")] = ""
    since: Annotated[
        str, typer.Option(help="Seen since 2026-11-24T10:00:00Z, or 2h for two hours ago.")
    ] = ""
    until: Annotated[str, typer.Option(help="Last seen before; written like --since.")] = ""

    @property
    def is_empty(self) -> bool:
        """Say whether no option was given."""
        return self == RecordOptions()

    def selection(self, ids: Iterable[str] = ()) -> Selection:
        """Return which records are meant.

        Raises:
            UsageWrong: There is no such reason or moment.
        """
        known = {reason.value for reason in Refusal}
        if self.reason and self.reason not in known:
            raise UsageWrong(f"There is no reason '{self.reason}': {', '.join(sorted(known))}.")
        now = time.time_ns() // 1_000_000
        return Selection(
            frozenset(ids),
            self.audience,
            self.reason,
            since_ms=parse_moment_ms(self.since, "--since", now_ms=now) if self.since else 0,
            until_ms=parse_moment_ms(self.until, "--until", now_ms=now) if self.until else 0,
        )


@dataclass(frozen=True, slots=True)
class _RecordGroup:
    """Records of one audience and reason."""

    audience: str
    reason: str
    records: int
    times: int
    last_seen_ms: int
    sample: QuarantineRecord


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
    """List what is kept, by audience and reason; as JSON, record by record."""
    settings, client = _open()
    quarantine = Quarantine(client)
    selection = options.selection()
    if as_json:
        records = sorted(quarantine.records(selection), key=lambda one: -one.last_seen_ms)
        print_json([_document(record) for record in records[:limit]])
        return
    groups = _grouped(quarantine.records(selection))
    totals = quarantine.totals()
    table(
        (
            "audience",
            "reason",
            *number_columns("records", "times"),
            "last seen",
            "sample",
            *text_columns("what"),
        ),
        [_row(group, settings) for group in groups],
    )
    say(f"{totals.records:,} records, {totals.bytes / 1e6:,.1f} MB")
    if totals.dropped:
        note(f"{totals.dropped:,} older ones went because there was too much.")


@app.command()
def show(
    record_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """Show one record with its payload; profile fields are masked."""
    _, client = _open()
    quarantine = Quarantine(client)
    found = next(quarantine.records(Selection(frozenset({record_id}))), None)
    text = quarantine.text(record_id)
    if found is None or text is None:
        raise UsageWrong(f"There is no record {record_id}; `segrelay quarantine list` has the ids.")
    document = _document(found) | {"payload": _shown(text, reveal=reveal)}
    if as_json:
        print_json(document)
        return
    for name, value in document.items():
        shown = value if isinstance(value, str) else orjson.dumps(value).decode()
        say(f"{name}: {printable(shown)}")


@app.command()
@spread
def replay(
    ids: Ids = None,
    *,
    options: RecordOptions,
    force: Annotated[
        bool, typer.Option("--force", help="Take also what is older than the ledger remembers.")
    ] = False,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Try again to place records, which now may have a trigger, an identity, a known audience.

    What still can't be placed stays where it is. So does what came longer ago than the ledger
    remembers (delivery.ledger_retention): somebody may have left since without a trace.
    """
    _refuse_all_unsaid(ids, options, everything=everything)
    settings, client = _open()
    quarantine = Quarantine(client)
    publisher = Publisher(client, settings)
    reach = LedgerReach.of(settings, publisher.now_us() // 1_000, force=force)
    retried = retry_records(publisher, quarantine, options.selection(ids or ()), reach)
    if as_json:
        print_json(
            {
                "tried": retried.tried,
                "placed": retried.placed,
                "accepted": retried.accepted,
                "kept": retried.tried - retried.placed,
                "kept_by_reason": retried.kept_by_reason,
            }
        )
        return
    say(f"{retried.placed:,} of {retried.tried:,} placed, {retried.accepted:,} deliveries accepted")
    for why, count in retried.kept_by_reason.items():
        say(f"{count:,} stay: {_WHY.get(why, why)}")


@app.command()
@spread
def discard(
    ids: Ids = None,
    *,
    options: RecordOptions,
    everything: All = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Throw records away for good."""
    _refuse_all_unsaid(ids, options, everything=everything)
    _, client = _open()
    quarantine = Quarantine(client)
    chosen = [record.id for record in quarantine.records(options.selection(ids or ()))]
    if chosen:
        confirmed(f"Discard {len(chosen):,} records for good?", yes=yes)
    discarded = quarantine.remove(chosen)
    if as_json:
        print_json({"discarded": discarded})
    else:
        say(f"{discarded:,} records discarded")


def _open() -> tuple[Settings, Redis]:
    settings = load_settings()
    url = resolve_url(settings.redis)
    wait_ready(url)
    return settings, connect(url, replicas=settings.redis.replicas)


def _refuse_all_unsaid(
    ids: Iterable[str] | None, options: RecordOptions, *, everything: bool
) -> None:
    if not (everything or ids) and options.is_empty:
        raise UsageWrong("Name ids, a filter (--audience, --reason, …), or --all.")


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


def _grouped(records: Iterable[QuarantineRecord]) -> list[_RecordGroup]:
    found: defaultdict[tuple[str, str], list[QuarantineRecord]] = defaultdict(list)
    for record in records:
        found[record.audience, record.reason].append(record)
    groups = [
        _RecordGroup(
            audience,
            reason,
            len(members),
            sum(member.times for member in members),
            max(member.last_seen_ms for member in members),
            max(members, key=lambda member: member.last_seen_ms),
        )
        for (audience, reason), members in found.items()
    ]
    return sorted(groups, key=lambda group: (-group.times, group.audience))


def _row(group: _RecordGroup, settings: Settings) -> tuple[str, ...]:
    return (
        group.audience or "-",
        group.reason,
        f"{group.records:,}",
        f"{group.times:,}",
        shown_ms(group.last_seen_ms),
        group.sample.id,
        group.sample.message + _did_you_mean(group, settings),
    )


def _did_you_mean(group: _RecordGroup, settings: Settings) -> str:
    """A mistyped slug must be findable, on whichever side it was mistyped."""
    named = set(_audiences_of(settings))
    if group.reason != Refusal.NO_TRIGGER or group.audience in named:
        return ""
    close = difflib.get_close_matches(group.audience, named, n=1)
    return f" A trigger names '{close[0]}': is it that?" if close else ""


def _audiences_of(settings: Settings) -> Iterator[str]:
    for trigger in settings.triggers.values():
        yield from (name for name in trigger.audiences if name != ALL_AUDIENCES)


def _shown(text: bytes, *, reveal: bool) -> Any:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.decode(errors="replace") if reveal else f"{MASK} ({len(text)} bytes)"
    return value if reveal else masked(value)


def masked(payload: Any) -> Any:
    """Return a payload whose profile fields are masked; names, times and audiences stay."""
    if isinstance(payload, dict) and isinstance(payload.get("data"), dict):
        return {
            key: value if key in _ENVELOPE else masked(value) if key == "data" else hidden(value)
            for key, value in payload.items()
        }
    if isinstance(payload, dict):
        return {
            key: value if key == SEGMENT_EVENTS else hidden(value) for key, value in payload.items()
        }
    return hidden(payload)

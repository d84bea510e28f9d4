"""`segrelay quarantine`: what could not be placed, and what to do about it."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Final

import orjson
import typer
from redis import Redis

from ops.cli.asking import confirmed
from ops.cli.console import note, print_json, say, table
from producer.payloads import SEGMENT_EVENTS
from producer.publish import Publisher
from producer.quarantine import Quarantine, Record, Selection
from producer.retrying import retry_records
from worker.contract.connection import connect, resolve_url, wait_ready
from worker.contract.settings import ALL_AUDIENCES, Settings, load_settings
from worker.contract.words import Refusal
from worker.errors import UsageWrong

app = typer.Typer()

MASK: Final = "•••"
_SHOWN_ELEMENTS: Final = 20
_ENVELOPE: Final = frozenset({"meta", "specversion", "type", "time", "source"})

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Of `list`.")]
AudienceOption = Annotated[str, typer.Option("--audience", help="Only of this audience.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Only with this reason.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass(frozen=True, slots=True)
class _Group:
    """Records of one audience and reason."""

    audience: str
    reason: str
    records: int
    times: int
    last_seen_ms: int
    sample: Record


@app.command("list")
def list_records(
    *,
    audience: AudienceOption = "",
    reason: ReasonOption = "",
    limit: Annotated[int, typer.Option(help="Of single records.", min=1)] = 1_000,
    as_json: Json = False,
) -> None:
    """List what is kept, by audience and reason; as JSON, record by record."""
    settings, client = _open()
    quarantine = Quarantine(client)
    selection = _selection((), audience, reason)
    if as_json:
        records = sorted(quarantine.records(selection), key=lambda one: -one.last_seen_ms)
        print_json([_document(record) for record in records[:limit]])
        return
    groups = _grouped(quarantine.records(selection))
    totals = quarantine.totals()
    table(
        ("audience", "reason", "records", "times", "last seen", "sample", "what"),
        [_row(group, settings) for group in groups],
    )
    say(f"{totals.records:,} records, {totals.bytes / 1e6:,.1f} MB")
    if totals.dropped:
        note(f"{totals.dropped:,} older ones went because there was too much.")


@app.command()
def show(
    record_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reveal: Annotated[bool, typer.Option("--reveal", help="With the profile's fields.")] = False,
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
        say(f"{name}: {value if isinstance(value, str) else orjson.dumps(value).decode()}")


@app.command()
def replay(
    ids: Ids = None,
    *,
    audience: AudienceOption = "",
    reason: ReasonOption = "",
    as_json: Json = False,
) -> None:
    """Try again to place records, which now may have a trigger, an identity, a known audience.

    Without ids or a filter all records are tried: what still can't be placed stays where it is.
    """
    settings, client = _open()
    quarantine = Quarantine(client)
    retried = retry_records(
        Publisher(client, settings), quarantine, _selection(ids or (), audience, reason)
    )
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
        say(f"{count:,} stay: {why}")


@app.command()
def discard(
    ids: Ids = None,
    *,
    audience: AudienceOption = "",
    reason: ReasonOption = "",
    everything: Annotated[bool, typer.Option("--all", help="All records.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Throw records away for good."""
    if not (ids or audience or reason or everything):
        raise UsageWrong("Name ids, --audience, --reason, or --all.")
    _, client = _open()
    quarantine = Quarantine(client)
    chosen = [record.id for record in quarantine.records(_selection(ids or (), audience, reason))]
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
    return settings, connect(url)


def _selection(ids: Iterable[str], audience: str, reason: str) -> Selection:
    if reason and reason not in {known.value for known in Refusal}:
        raise UsageWrong(
            f"There is no reason '{reason}': {', '.join(known.value for known in Refusal)}."
        )
    return Selection(frozenset(ids), audience, reason)


def _document(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "audience": record.audience,
        "reason": record.reason,
        "message": record.message,
        "lane": record.lane,
        "times": record.times,
        "first_seen_at": _at(record.first_seen_ms),
        "last_seen_at": _at(record.last_seen_ms),
    }


def _at(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _grouped(records: Iterable[Record]) -> list[_Group]:
    found: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        found[record.audience, record.reason].append(record)
    groups = [
        _Group(
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


def _row(group: _Group, settings: Settings) -> tuple[str, ...]:
    return (
        group.audience or "-",
        group.reason,
        f"{group.records:,}",
        f"{group.times:,}",
        _at(group.last_seen_ms),
        group.sample.id,
        group.sample.message + _did_you_mean(group, settings),
    )


def _did_you_mean(group: _Group, settings: Settings) -> str:
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
            key: value if key in _ENVELOPE else masked(value) if key == "data" else _hidden(value)
            for key, value in payload.items()
        }
    if isinstance(payload, dict):
        return {
            key: value if key == SEGMENT_EVENTS else _hidden(value)
            for key, value in payload.items()
        }
    return _hidden(payload)


def _hidden(value: Any) -> Any:
    """Mask a value but for its shape."""
    if isinstance(value, dict):
        return {key: _hidden(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_hidden(element) for element in islice(value, _SHOWN_ELEMENTS)]
    return MASK if value is not None else None

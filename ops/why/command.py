"""`segrelay why`: what is known of one person, and the outcomes of their events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from segrelay.ops.dead_letters.reading import StoredDeadLetter
from segrelay.ops.state.acts import Reads
from segrelay.ops.state.identity_changes import PastRenaming
from segrelay.ops.state.waiting import WaitingEntry
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import shown_ms, shown_us
from segrelay.ops.terminal.tables import text_columns
from segrelay.ops.why.story import MOST_ENTRIES, KnownProfile, Moment, explain
from segrelay.producer.publishing.quarantine import QuarantineRecord
from segrelay.worker.contract.receivers import (
    MOST_REQUESTS,
    REQUEST_ID,
    WebhookRequest,
    read_requests,
)
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.errors import UsageWrong

_ORPHANED: Final = "its trigger is gone, or does not want it any more: `segrelay trigger move`"


def why(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="An email address (the identity), a digest of `verify`, FIELD:VALUE, or the id of"
            " a webhook request from the receiver's log.",
        ),
    ],
    *,
    relay: Reads,
) -> Result:
    """Tell what was delivered for a person, what waits, what died, and what happened lately."""
    if REQUEST_ID.fullmatch(profile):
        return _request(relay.client, profile)
    known = explain(relay.client, relay.settings, profile)
    timeline = timeline_of(known)
    whole = f"Only the first {MOST_ENTRIES:,} waiting deliveries were looked at."
    return Result(
        _document(known, timeline),
        *_text(known, timeline),
        notes=() if known.is_whole else [whole],
    )


def timeline_of(known: KnownProfile) -> list[Moment]:
    """Return all that happened to a person, and what waits of them, the oldest first."""
    return sorted(_moments(known), key=lambda moment: moment.at_ms)


def _moments(known: KnownProfile) -> Iterator[Moment]:
    yield from known.past
    yield from map(_of_dead_letter, known.dead_letters)
    yield from (_of_entry(entry, known) for entry in known.waiting)
    yield from map(_of_record, known.quarantined)
    yield from map(_of_request, known.requests)
    yield from map(_of_renaming, known.renamings)
    for destination, at_ms in known.written_ms.items():
        detail = "the last time that the ledger changed for this person"
        yield Moment(at_ms, "ledger", destination, detail=detail)
    for destination, lines in known.ledger.items():
        newest_us = max((line.delivered_us for line in lines), default=0)
        if newest_us and destination not in known.written_ms:
            detail = "the newest event that was delivered for this person, at its own time"
            yield Moment(newest_us // 1_000, "ledger", destination, detail=detail)


def _of_dead_letter(dead_letter: StoredDeadLetter) -> Moment:
    return Moment(
        dead_letter["last_at_ms"],
        "dead letter",
        dead_letter["destination"],
        dead_letter["trigger"],
        dead_letter["audience"],
        dead_letter["direction"],
        dead_letter["time_us"],
        f"{dead_letter['id']}: {dead_letter['reason']}:"
        f" {normalise_message(dead_letter['message'])}",
    )


def _of_entry(entry: WaitingEntry, known: KnownProfile) -> Moment:
    header = entry.header
    assert header is not None
    is_orphaned = entry in known.orphaned
    why = known.obstacles.of(entry) if known.obstacles else ""
    why = _ORPHANED if is_orphaned else why
    return Moment(
        entry.since_ms,
        "orphaned" if is_orphaned else "waits",
        entry.stream.place.destination,
        entry.stream.trigger,
        header.audience,
        header.direction.value,
        header.time_us,
        f"in lane {entry.stream.lane}" + (f": {why}" if why else ""),
    )


def _of_record(record: QuarantineRecord) -> Moment:
    detail = f"{record.id}: {record.reason}"
    at_ms, audience = record.last_seen_ms, record.audience
    return Moment(at_ms, "quarantined", audience=audience, detail=detail)


def _of_request(request: WebhookRequest) -> Moment:
    detail = f"by the webhook request {request.name}, which the receiver's log names too"
    return Moment(request.at_ms, "received", detail=detail)


def _of_renaming(one: PastRenaming) -> Moment:
    how = "its event brought another identity for the stable id" if one.trigger else "by a command"
    return Moment(one.at_ms, "renamed", one.destination, one.trigger, detail=how)


def _request(client: Redis, name: str) -> Result:
    """Return what is known of one webhook request."""
    found = next((one for one in read_requests(client) if one.name == name), None)
    if found is None:
        raise UsageWrong(
            f"Nothing is known of the request {name}: only the last {MOST_REQUESTS:,} are kept,"
            " and it takes a few seconds until one is."
        )
    people = [digest.hex() for digest in found.people]
    document = {
        "request": name,
        "at": shown_ms(found.at_ms),
        "status": found.status,
        "accepted": found.accepted,
        "quarantined": found.quarantined,
        "people": people,
    }
    shown = document | {"people": ", ".join(people) or "-"}
    hint = "`segrelay why DIGEST` tells about each of these people."
    lines = (f"{key}: {value}" for key, value in shown.items())
    return Result(document, *lines, notes=[hint] if people else ())


def _document(known: KnownProfile, timeline: list[Moment]) -> dict[str, Any]:
    return {
        "profile": {"digest": known.person.digest.hex(), "partition": known.person.partition},
        "known": not known.is_nothing,
        "ledger": list(ledger_of(known)),
        "waiting": [_row_of(_of_entry(entry, known)) for entry in known.waiting],
        "waiting_is_whole": known.is_whole,
        "letters": [dead_letter["id"] for dead_letter in known.dead_letters],
        "quarantined": [record.id for record in known.quarantined],
        "timeline": [_row_of(moment) for moment in timeline],
    }


def ledger_of(known: KnownProfile) -> Iterator[dict[str, Any]]:
    """Yield what the ledger knows of a person: the newest of each audience and trigger."""
    for destination, lines in known.ledger.items():
        for line in lines:
            yield {
                "destination": destination,
                "audience": line.audience,
                "trigger": line.trigger,
                "direction": line.direction.value,
                "delivered": shown_us(line.delivered_us) if line.delivered_us else None,
                "tried": shown_us(line.tried_us) if line.tried_us else None,
                "confirmed_without_sending": line.raised,
            }


def _row_of(moment: Moment) -> dict[str, Any]:
    return {
        "at": shown_ms(moment.at_ms),
        "what": moment.what,
        "destination": moment.destination,
        "trigger": moment.trigger,
        "audience": moment.audience,
        "direction": moment.direction,
        "event_time": shown_us(moment.event_us) if moment.event_us else None,
        "detail": moment.detail,
    }


def _text(known: KnownProfile, timeline: list[Moment]) -> Iterator[str | Table]:
    if known.is_nothing:
        yield "Nothing is known of this person: no delivery, nothing waiting, no letter."
        return
    yield from _ledger_text(list(ledger_of(known)))
    if timeline:
        yield ""
        names = ("at", "what", "destination", "trigger", "audience", "direction", "event time")
        rows = [tuple(value or "-" for value in _row_of(moment).values()) for moment in timeline]
        yield Table((*names, *text_columns("detail")), rows)


def _ledger_text(ledger: list[dict[str, Any]]) -> Iterator[str | Table]:
    if not ledger:
        yield "The ledger knows of no delivery."
        return
    yield "The ledger: the newest that was delivered."
    names = ("destination", "audience", "trigger", "direction")
    rows = [
        (*(line[name] for name in names), line["delivered"] or "-", line["tried"] or "-")
        for line in ledger
    ]
    yield Table((*names, "delivered", "without answer"), rows)

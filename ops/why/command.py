"""`segrelay why`: what is known of one person, and the outcomes of their events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import typer

from segrelay.ops.dead_letters.reading import StoredDeadLetter
from segrelay.ops.samples import Payload, keep_payload
from segrelay.ops.state.acts import Reads
from segrelay.ops.state.waiting import WaitingEntry
from segrelay.ops.terminal.console import json_or_text
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.moments import shown_ms, shown_us
from segrelay.ops.terminal.tables import text_columns
from segrelay.ops.why.story import MOST_ENTRIES, KnownProfile, Moment, explain, profile_of
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.processes import (
    MOST_REQUESTS,
    REQUEST_ID,
    read_requests,
)
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.words import Skip
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.errors import UsageWrong

_SAME_MS: Final = 10_000
"""A death and its letter are written in one step, by the clocks of a worker and of Redis."""
_SAID_ALREADY: Final = tuple(reason.value for reason in Skip if not reason.effects.is_news)
"""Remarks on skipped events of which another event tells the same, or more."""
ENDS: Final = frozenset({"delivered", "skipped", "dead", "dead letter", "quarantined"})


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
    fields: Annotated[
        bool,
        typer.Option("--fields/--no-fields", help="Search other fields than the identity too."),
    ] = True,
    payload: Payload = False,
    relay: Reads,
) -> Result:
    """Tell what was delivered for a person, what waits, what died, and what happened lately."""
    if REQUEST_ID.fullmatch(profile):
        return _request(relay.client, profile)
    known = explain(relay.client, relay.settings, profile, by_fields=fields)
    if payload:
        return keep_payload(relay, known.person.digest.hex(), _newest_payload(relay, known))
    timeline = timeline_of(known)
    whole = f"Only the first {MOST_ENTRIES:,} waiting deliveries were looked at."
    return Result(
        _document(known, timeline),
        *_text(known, timeline),
        notes=() if known.is_whole else [whole],
    )


def _newest_payload(relay: Reads, known: KnownProfile) -> Any:
    """Return what is still kept of a person's events: what waits, is dead or in the quarantine."""
    if known.waiting:
        return profile_of(known.waiting[-1])
    if known.dead_letters:
        return known.dead_letters[0]["profile"]
    for record in known.quarantined:
        text = Quarantine(relay.client).text(record.id)
        if text:
            return json_or_text(text.decode(errors="replace"))
    raise UsageWrong(
        "No payload of this person is kept: only what waits, is dead or in the quarantine has one."
    )


def timeline_of(known: KnownProfile) -> list[Moment]:
    """Return all that happened to a person, and what waits of them, the oldest first."""
    return sorted(_moments(known), key=lambda moment: moment.at_ms)


def _moments(known: KnownProfile) -> Iterator[Moment]:
    yield from _past(known)
    yield from map(_of_dead_letter, known.dead_letters)
    yield from (_of_entry(entry, known) for entry in known.waiting)
    for record in known.quarantined:
        detail = f"{record.id}: {record.reason}"
        yield Moment(record.last_seen_ms, "quarantined", audience=record.audience, detail=detail)
    for request in known.requests:
        detail = f"by the webhook request {request.name}, which the receiver's log names too"
        yield Moment(request.at_ms, "received", detail=detail)
    told = {moment.destination for moment in known.past if moment.what == "delivered"}
    for destination, at_ms in known.written_ms.items():
        if destination not in told:
            detail = "the last time that the ledger changed for this person"
            yield Moment(at_ms, "ledger", destination, detail=detail)


def _past(known: KnownProfile) -> Iterator[Moment]:
    """Yield the past without deaths whose letters are there: they are told by the letters."""
    dead_letters = {
        (each["trigger"], each["audience"], each["time_us"], each["last_at_ms"] // _SAME_MS)
        for each in known.dead_letters
    }
    for moment in known.past:
        own = (moment.trigger, moment.audience, moment.event_us, moment.at_ms // _SAME_MS)
        if moment.what != "dead" or own not in dead_letters:
            yield moment


def tells_less(one: Moment) -> bool:
    """Say whether a line is about an event of which another one tells the same, or more."""
    return one.what == "tried" or one.detail.startswith(_SAID_ALREADY)


def verdict(known: KnownProfile, timeline: Sequence[Moment]) -> str:
    """Return the last sentence: about the deliveries that wait, else about the last outcome."""
    waiting = [moment for moment in timeline if moment.what in ("waits", "orphaned")]
    if waiting:
        first = min(waiting, key=lambda moment: moment.at_ms)
        wait = "waits" if len(waiting) == 1 else "wait"
        return (
            f"{plural(len(waiting), 'delivery', 'deliveries')} {wait} since"
            f" {shown_ms(first.at_ms)} {first.detail}."
        )
    ended = [one for one in timeline if one.what in ENDS]
    ended = [one for one in ended if not tells_less(one)] or ended
    if not ended:
        delivered = any(one.delivered_us for lines in known.ledger.values() for one in lines)
        ledger = "What was delivered stands in the ledger; when it was is not known now."
        return f"Nothing waits. {ledger if delivered else 'Nothing was delivered.'}"
    last = max(ended, key=lambda moment: moment.at_ms)
    if last.what == "quarantined":
        of = last.audience or "no audience"
        return f"The last event (of {of}) came, and could not be placed: {last.detail}."
    event = f"{last.direction} of {last.audience} at {shown_us(last.event_us)}"
    what = f"The last event ({event}, for {last.trigger})"
    if last.what != "delivered":
        return f"{what} is {last.what.removesuffix(' letter')}: {last.detail}."
    tries = 1 + sum(
        moment.what == "retry"
        and (moment.trigger, moment.audience, moment.event_us)
        == (last.trigger, last.audience, last.event_us)
        for moment in timeline
    )
    after = f" after {tries:,} tries" if tries > 1 else ""
    answered = f", {last.detail}" if last.detail else ""
    return f"{what} was delivered{after} at {shown_ms(last.at_ms)}{answered}."


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
    header, obstacles = entry.header, known.obstacles
    assert header is not None
    assert obstacles is not None
    why = "; ".join(obstacles.of(entry))
    return Moment(
        entry.since_ms,
        "orphaned" if obstacles.is_orphan(entry) else "waits",
        entry.stream.partition.destination,
        entry.stream.trigger,
        header.audience,
        header.direction.value,
        header.time_us,
        f"in lane {entry.stream.lane}" + (f": {why}" if why else ""),
    )


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
        "verdict": "" if known.is_nothing else verdict(known, timeline),
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
    names = ("what", "destination", "trigger", "audience", "direction")
    return {
        "at": shown_ms(moment.at_ms),
        **{name: getattr(moment, name) for name in names},
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
    yield ""
    yield verdict(known, timeline)


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
    yield Table((*names, "event time", "without answer"), rows)

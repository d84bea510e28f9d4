"""`segrelay try`: preview one person's event, or send it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from segrelay.ops.insider import read_sent
from segrelay.ops.preview.one_event import NotSent, send
from segrelay.ops.state.opened import already_there, opened
from segrelay.ops.templates.events import candidate_of, events_for, slug_or_id
from segrelay.ops.terminal.console import json_or_text, read_json_values
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import configured
from segrelay.producer.events.payloads import ResolveAudience
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.producer.wakeups import CeleryWaker
from segrelay.worker.checks.preview import Candidate, Previewed, failure_without_id, preview
from segrelay.worker.checks.samples import in_want_of_id
from segrelay.worker.checks.triggers import audiences_without_id
from segrelay.worker.contract.events import Event, has_id, with_id
from segrelay.worker.contract.keys import partition_of
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.settings import Settings, Trigger, load_settings
from segrelay.worker.destinations.api import Shaped
from segrelay.worker.destinations.registry import api_of
from segrelay.worker.errors import SegrelayError, UsageWrong


def try_(
    file: Annotated[Path, typer.Argument(help="A file with one payload, as JSON.")],
    *,
    trigger: Annotated[
        str, typer.Option(help="The trigger to try it with.  [default: all that want the event]")
    ] = "",
    sends: Annotated[
        bool, typer.Option("--send", help="Send it for real, and then read the person back.")
    ] = False,
) -> Result:
    """Show what would become of one event, with all profile fields; nothing is sent.

    Without --trigger it is tried with each trigger that wants it; as JSON that is a list then.
    With --send a drain of its own delivers it, by gate, lease, ledger and intent as in a worker.
    A pause of the destination holds, a pause of the trigger does not. The exit code is 1 if it
    would not be sent, was not sent, or was not taken.
    """
    settings = load_settings()
    chosen = (
        [configured("trigger", trigger, settings.triggers)] if trigger else _wanting(file, settings)
    )
    results = [_tried(file, each, settings, sends=sends) for each in chosen]
    documents = [{"trigger": name, **result} for name, result, _ in results]
    return Result(
        results[0][1] if trigger else documents,
        *(line for one in documents for line in _lines(one, with_trigger=not trigger)),
        notes=[note for one in documents for note in _notes(one)],
        exit_code=0 if all(is_right for *_, is_right in results) else 1,
    )


def _wanting(file: Path, settings: Settings) -> list[Trigger]:
    """Return the triggers that want an event of the file."""
    wanting = []
    problems: list[UsageWrong] = []
    for trigger in settings.triggers.values():
        try:
            event = _event(file, trigger, settings, slug_or_id)
        except UsageWrong as error:
            problems.append(error)
        else:
            if trigger.wants(event.audience):
                wanting.append(trigger)
    if wanting:
        return wanting
    if problems and len(problems) == len(settings.triggers):
        raise problems[0]
    raise UsageWrong(
        f"{file}: no trigger wants an event of it; --trigger tries it with one all the same."
    )


def _tried(
    file: Path, trigger: Trigger, settings: Settings, *, sends: bool
) -> tuple[str, dict[str, Any], bool]:
    """Return the trigger's name, the document of the result, and whether it is a success."""
    if sends:
        return trigger.name, *_sent(file, trigger)
    event = _event(file, trigger, settings, slug_or_id)
    known_id = _known_id(event.audience, settings)
    if known_id and not has_id(event.profile):
        event = replace(event, profile=with_id(event.profile, known_id))
    candidate, previewed = _previewed(event, trigger, settings)
    warnings = [] if known_id else list(_without_id(candidate, trigger, settings))
    document = _document(event, previewed, trigger, settings) | {"warnings": warnings}
    return trigger.name, document, previewed.fate == "sent"


def _known_id(audience: str, settings: Settings) -> str:
    """Return the id of an audience that rows of it would get; "" = none, as far as can be told."""
    told = settings.told_ids
    try:
        with already_there() as (_, client):
            return AudienceStore(client, told=told, learns=False).id_of(audience)
    except SegrelayError:
        return next((one for one, slug in told.items() if slug == audience), "")


def _without_id(candidate: Candidate, trigger: Trigger, settings: Settings) -> Iterator[str]:
    """Yield a warning if an event fails without the id of its audience, and only without it."""
    audience = candidate.header.audience
    alone = trigger.model_copy(update={"audiences": (audience,)})
    if not audiences_without_id(settings, alone, ()):
        return
    failed = failure_without_id(candidate, trigger, settings, now_us=time.time_ns() // 1000)
    if failed:
        yield in_want_of_id(failed.located_message, [audience], settings.sync.values())


def _event(file: Path, trigger: Trigger, settings: Settings, resolve: ResolveAudience) -> Event:
    """Return the first event of a file that a trigger wants, or else the first one at all."""
    found = events_for(file, read_json_values(file), trigger, settings, resolve)
    return next((event for event in found if trigger.wants(event.audience)), found[0])


def _previewed(event: Event, trigger: Trigger, settings: Settings) -> tuple[Candidate, Previewed]:
    candidate = candidate_of(event, trigger, settings)
    (previewed,) = preview([candidate], settings)
    return candidate, previewed


def _document(
    event: Event, previewed: Previewed, trigger: Trigger, settings: Settings
) -> dict[str, Any]:
    shaped = previewed.shaped
    return {
        "event": {
            "audience": event.audience,
            "direction": event.direction.value,
            "wanted": trigger.wants(event.audience),
        },
        "outcome": f"would_be_{previewed.fate}",
        "reason": previewed.reason,
        "message": previewed.located_message,
        "rendered": previewed.body,
        "method": api_of(settings, trigger).method,
        "url": settings.shown_url_of(trigger),
        **previewed.target,
        "request": previewed.sent,
        "left_out": list(shaped.dropped) if shaped else [],
    }


def _json(body: bytes) -> Any:
    return json_or_text(body.decode(errors="replace")) if body else None


def _sent(file: Path, trigger: Trigger) -> tuple[dict[str, Any], bool]:
    with opened() as (settings, client):
        claim(client, settings)
        audiences = AudienceStore(client, told=settings.told_ids)
        event = _event(file, trigger, settings, audiences.resolve)
        event = replace(event, profile=audiences.identified(event.profile, event.audience))
        candidate, previewed = _previewed(event, trigger, settings)
        document = _document(event, previewed, trigger, settings)
        if previewed.shaped is None:
            return document | {"outcome": "not_sent"}, False
        partition = partition_of(event.profile_key, settings.redis.partitions)
        result = send(candidate, partition, settings, client, CeleryWaker(settings))
    if isinstance(result, NotSent):
        return document | {
            "outcome": "not_sent",
            "reason": result.reason,
            "message": result.message,
        }, False
    answered = {
        "outcome": result.outcome,
        "message": result.message,
        "request": _json(result.request),
        "status": result.status,
        "answer": _json(result.answer),
    }
    is_taken = result.outcome == "delivered"
    return document | answered | _read_back(previewed.shaped, trigger, settings), is_taken


def _read_back(shaped: Shaped, trigger: Trigger, settings: Settings) -> dict[str, Any]:
    """Return the person as Insider holds them; a write may show only later."""
    if settings.destinations[trigger.destination].api != "insider":
        return {}
    read = read_sent(shaped, trigger, settings)
    document = {"read_back": read.attributes}
    return document | {"read_back_problem": read.problem} if read.problem else document


def _lines(document: dict[str, Any], *, with_trigger: bool) -> Iterator[str]:
    for name, value in document.items():
        if value in (None, "", []) or (name == "trigger" and not with_trigger):
            continue
        if name == "warnings":
            continue
        if name == "outcome":
            yield f"outcome: {value.replace('_', ' ')}"
        elif isinstance(value, str | int | bool):
            yield f"{name}: {value}"
        else:
            yield f"{name}:"
            yield orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _notes(document: dict[str, Any]) -> Iterator[str]:
    for warning in document.get("warnings", ()):
        yield f"warning: {warning}"
    if not document["event"]["wanted"]:
        yield "The trigger does not name this audience: an event like this would not reach it."
    if "read_back" in document:
        yield "What was written may show only later; `segrelay verify` compares for many."

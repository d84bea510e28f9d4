"""`segrelay try`: preview one person's event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from segrelay.ops.state.opened import already_there
from segrelay.ops.templates.render import candidate_of, events_for
from segrelay.ops.terminal.console import read_json_values
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import configured
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.worker.checks.preview import preview
from segrelay.worker.contract.events import Event, has_id, with_id
from segrelay.worker.contract.settings import Settings, Trigger, load_settings
from segrelay.worker.destinations.registry import api_of
from segrelay.worker.errors import SegrelayError, UsageWrong


def try_(
    file: Annotated[Path, typer.Argument(help="A file with one payload, as JSON.")],
    *,
    trigger: Annotated[
        str, typer.Option(help="The trigger to try it with.  [default: all that want the event]")
    ] = "",
) -> Result:
    """Show what would become of one event, with all profile fields; nothing is sent.

    Without --trigger it is tried with each trigger that wants it; as JSON that is a list then. The
    exit code is 1 if it would not be sent. `segrelay send FILE --wait` sends it.
    """
    settings = load_settings()
    if trigger:
        one = configured("trigger", trigger, settings.triggers)
        tried = [(one, _event(file, one, settings))]
    else:
        tried = list(_wanting(file, settings))
    documents = [
        ({} if trigger else {"trigger": one.name}) | _document(event, one, settings)
        for one, event in tried
    ]
    return Result(
        documents[0] if trigger else documents,
        *(line for document in documents for line in _lines(document)),
        notes=[
            "The trigger does not name this audience: an event like this would not reach it."
            for document in documents
            if not document["event"]["wanted"]
        ],
        exit_code=0 if all(one["outcome"] == "would_be_sent" for one in documents) else 1,
    )


def _event(file: Path, trigger: Trigger, settings: Settings) -> Event:
    """Return the first event of a file that a trigger wants, or else the first one at all."""
    found = events_for(file, read_json_values(file), trigger, settings)
    return next((event for event in found if trigger.wants(event.audience)), found[0])


def _wanting(file: Path, settings: Settings) -> Iterator[tuple[Trigger, Event]]:
    """Yield the triggers that want an event of the file; there is at least one."""
    problems: list[UsageWrong] = []
    wanted = 0
    for trigger in settings.triggers.values():
        try:
            event = _event(file, trigger, settings)
        except UsageWrong as error:
            problems.append(error)
            continue
        if trigger.wants(event.audience):
            wanted += 1
            yield trigger, event
    if problems and len(problems) == len(settings.triggers):
        raise problems[0]
    if not wanted:
        raise UsageWrong(
            f"{file}: no trigger wants an event of it; --trigger tries it with one all the same."
        )


def _document(event: Event, trigger: Trigger, settings: Settings) -> dict[str, Any]:
    """Preview an event as a delivery of a trigger; it gets the id that rows of it would get."""
    known_id = "" if has_id(event.profile) else _known_id(event.audience, settings)
    if known_id:
        event = replace(event, profile=with_id(event.profile, known_id))
    [previewed] = preview([candidate_of(event, trigger, settings)], settings)
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
        "left_out": list(previewed.shaped.dropped) if previewed.shaped else [],
    }


def _known_id(audience: str, settings: Settings) -> str:
    """Return the id of an audience that rows of it would get; "" = none, as far as can be told."""
    told = settings.told_ids
    try:
        with already_there() as (_, client):
            return AudienceStore(client, told=told, learns=False).id_of(audience)
    except SegrelayError:
        return next((one for one, slug in told.items() if slug == audience), "")


def _lines(document: dict[str, Any]) -> Iterator[str]:
    for name, value in document.items():
        if value in (None, "", []):
            continue
        if isinstance(value, str):
            yield f"{name}: {value.replace('_', ' ') if name == 'outcome' else value}"
        else:
            yield f"{name}:"
            yield orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()

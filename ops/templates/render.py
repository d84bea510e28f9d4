"""`segrelay template render`, `template diff` and `segrelay try`: what becomes of events now.

Events come from a file, dead letters, or waiting deliveries. The changes that shaping made to a
rendered body are told with the reasons; where two versions are compared, no value is shown.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from heapq import nlargest
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from segrelay.jsonnet.rendered import Killed, TemplateBroken, TemplateFailed
from segrelay.ops.dead_letters.commands import candidate_of as candidate_of_dead_letter
from segrelay.ops.dead_letters.reading import find_dead_letters, place_of
from segrelay.ops.state.opened import already_there, opened
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.waiting import Filter, find_streams, read_entries
from segrelay.ops.templates.workspace import (
    Folder,
    TemplateArgument,
    TriggerName,
    Workspace,
    cases_of,
    workspace_of,
)
from segrelay.ops.terminal.console import fields_of
from segrelay.ops.terminal.frame import Result, Table
from segrelay.ops.terminal.options import configured
from segrelay.ops.terminal.tables import count_columns, text_columns
from segrelay.producer.events.payloads import ReadingRules, Refused, events_of, values_of
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.producer.publishing.drafting import export
from segrelay.worker.checks.preview import (
    Candidate,
    Did,
    Previewed,
    differences,
    entry_of,
    load_profiles,
    preview,
    preview_rendering,
    profile_for,
    sample_row,
)
from segrelay.worker.contract.events import Event, decode_profile, has_id, header_of, with_id
from segrelay.worker.contract.printable import plural, read_json_values
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings, Trigger, load_settings
from segrelay.worker.contract.settings.sections import with_defaults
from segrelay.worker.destinations.normalise import is_empty
from segrelay.worker.destinations.registry import api_of
from segrelay.worker.errors import SegrelayError, UsageWrong, WeMustAct

_INDEX: Final = re.compile(r"\[\d+\]")


class Change(NamedTuple):
    """A field that is sent otherwise than rendered, or not at all.

    Attributes:
        path: The path in the body, such as `users[0].attributes.age`.
    """

    path: str
    did: Did
    why: str
    before: Any = None
    after: Any = None


def changes_of(body: Any, sent: Any, dropped: Sequence[str]) -> list[Change]:
    """Compare a rendered body with the body that would be sent.

    `dropped` names what shaping found to be wrong.
    """
    return [
        Change(path, did, _why(path, did, before, dropped), before, after)
        for path, did, before, after in differences(body, sent)
    ]


def field_of(path: str) -> str:
    """Return a path without the positions in lists, which is the same for every person."""
    return _INDEX.sub("[]", path)


def _why(path: str, did: Did, value: Any, dropped: Sequence[str]) -> str:
    if did != "left out":
        return "shaping puts it in" if did == "added" else "its form is corrected"
    if is_empty(value):
        return "it is empty: what is not known is not sent"
    name = field_of(path).replace("[]", "").removeprefix("users.")
    if any(name == each or name.startswith(f"{each}.") for each in dropped):
        return "it is not valid"
    if "too_old" in dropped and name.startswith("events"):
        return "Insider does not write events that are so old"
    return "nothing of what it belongs to is sent"


def document_of(one: Previewed) -> dict[str, Any]:
    """Return the result for an event as `template render --json` prints it."""
    base: dict[str, Any] = {"event": one.name, "outcome": one.rendering}
    if one.rendering == "skipped":
        return base | {"reason": one.reason, "message": one.message}
    if one.rendering == "failed":
        failed = one.result if isinstance(one.result, TemplateFailed) else TemplateFailed("", "", 0)
        return base | {"message": one.message, "file": failed.file, "line": failed.line}
    if one.shaping is None:
        return base | {"body": one.body}
    changes: list[Change] = []
    if one.shaped and one.shaped.users != (one.body,):
        changes = changes_of(one.body, one.sent, one.shaped.dropped)
    return base | {
        "body": one.body,
        "sent": one.sent,
        **one.target,
        "reason": one.reason,
        "message": one.message,
        "changes": [change._asdict() for change in changes],
    }


def preview_named(workspace: Workspace, template: str, what: str, trigger: str) -> list[Previewed]:
    """Render the named events, and shape them if a trigger is known.

    Args:
        workspace: The folder of the templates, with its configuration.
        template: The path below that folder.
        what: The path of a file, or the id of a dead letter.
        trigger: A trigger's name; "" = the one that uses the template, by the event's direction.
    """
    settings, path = workspace.settings, Path(what)
    chosen = [workspace.trigger(trigger)] if trigger else workspace.triggers(template)
    if settings is not None and place_of(what) and not path.is_file():
        with opened() as (_, client):
            candidate = _of_dead_letter(client, settings, what)
        own = settings.triggers.get(candidate.trigger)
        one = own if own and (not chosen or own in chosen) else next(iter(chosen), None)
        if one is None:
            raise UsageWrong(
                f"The event is one of {candidate.trigger}, which the configuration does not"
                " have; name another by --trigger."
            )
        return preview([candidate], settings, trigger=one, template=template)
    profiles = load_profiles(path)
    ways = {entry_of(profile).get("event") for profile in profiles}
    fitting = {one.on: one for one in reversed(chosen) if one.on in ways}.values()
    if settings is None or not (fitting or len(chosen) == 1):
        rows = [sample_row(one, with_defaults({})) for one in profiles]
        return preview_rendering(workspace.folder, template, rows)
    return [
        previewed
        for one in fitting or chosen
        for previewed in preview(
            from_payload(path, read_json_values(path), one, settings),
            settings,
            trigger=one,
            template=template,
        )
    ]


MOST: Final = 10_000
"""Largest number of events that a comparison reads of each kind: dead letters, and waiting ones."""


def _of_dead_letter(client: Redis, settings: Settings, dead_letter_id: str) -> Candidate:
    partitions = all_partitions(client, settings)
    dead_letter = next(find_dead_letters(client, partitions, Filter.of_id(dead_letter_id)), None)
    if dead_letter is None:
        raise UsageWrong(
            f"There is no dead letter {dead_letter_id}; `segrelay dlq list` shows all."
        )
    candidate = candidate_of_dead_letter(dead_letter)
    if candidate is None:
        raise UsageWrong(f"The entry of the letter {dead_letter_id} can't be read by this version.")
    return candidate


def kept(
    client: Redis,
    settings: Settings,
    trigger: Trigger,
    dead_letters: bool,  # noqa: FBT001 - the kinds of events
    waiting: bool,  # noqa: FBT001
) -> Iterator[Candidate]:
    """Yield the events of a trigger that Redis holds, and this version can read.

    What was delivered is no longer there.
    """
    partitions = all_partitions(client, settings, [trigger.destination])
    if dead_letters:
        found = find_dead_letters(client, partitions, Filter(trigger=trigger.name))
        yield from islice(filter(None, map(candidate_of_dead_letter, found)), MOST)
    if waiting:
        entries = (
            entry
            for stream in find_streams(client, partitions, Filter(trigger=trigger.name))
            for entry in read_entries(client, stream)
        )
        for entry in islice(entries, MOST):
            if entry.header is not None:
                name = f"{entry.stream.lane} {entry.entry_id}"
                profile = decode_profile(entry.profile)
                yield Candidate(name, entry.stream.trigger, entry.header, profile)


def from_payload(
    source: object, payload: Any, trigger: Trigger, settings: Settings
) -> list[Candidate]:
    """Return the events of a payload that have a trigger's direction.

    Messages name the source of the payload.
    """
    return [
        candidate_of(one, trigger, settings, name=f"event {number}")
        for number, one in enumerate(events_for(source, payload, trigger, settings), 1)
    ]


def events_for(source: object, payload: Any, trigger: Trigger, settings: Settings) -> list[Event]:
    """Return the events of a payload that have the direction of a trigger; there is at least one.

    Messages name the source of the payload. Redis is not asked for the slug of an id.
    """
    now_us = time.time_ns() // 1_000
    reading = ReadingRules(
        now_us,
        now_us,
        settings.delivery.identity,
        lambda audience_id, slug: slug or audience_id,
        state=False,
        skip_hook=bool(trigger.skip_hook),
    )
    found = [one for value in values_of(payload) for one in events_of(value, reading)]
    events = [one for one in found if isinstance(one, Event)]
    fitting = [event for event in events if event.direction == trigger.on]
    if fitting:
        return fitting
    refused = next((one for one in found if isinstance(one, Refused)), None)
    if refused and not events:
        raise UsageWrong(f"{source}: {refused.reason.value}: {refused.message}")
    raise UsageWrong(f"{source}: holds no {trigger.on} event, which {trigger.name} is for.")


def candidate_of(
    event: Event, trigger: Trigger, settings: Settings, *, name: str = ""
) -> Candidate:
    """Return the delivery that a trigger would make of an event, to be previewed."""
    packed = export(event.profile, trigger.export_fields, settings.delivery.identity)
    header = header_of(event, accepted_ms=time.time_ns() // 1_000_000)
    return Candidate(name, trigger.name, header, decode_profile(packed))


def render(
    template: TemplateArgument,
    file: Annotated[
        str,
        typer.Argument(
            help="A payload or an array of them, or a dead letter's id.",
            metavar="FILE",
        ),
    ],
    *,
    trigger: TriggerName = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what is sent, too, and why they differ.")
    ] = False,
    templates: Folder = None,
) -> Result:
    """Print what a template makes of each segment event of a payload.

    FILE may also be the id of a dead letter. The exit code is 2 if the template fails for one.
    """
    workspace = workspace_of(templates)
    name = workspace.name_of(template)
    outcomes = preview_named(workspace, name, file, trigger)
    for number, one in enumerate(outcomes, 1):
        if isinstance(one.result, Killed):
            raise TemplateBroken(
                f"{name}: rendering event {number} of {len(outcomes)} ends or hangs the process.",
                name,
            )
    documents = [document_of(one) for one in outcomes]
    shapes = any(one.shaping for one in outcomes)
    return Result(
        documents,
        *(line for one in documents for line in _lines(one, explain=explain)),
        notes=[one.in_words for one in outcomes if one.rendering != "rendered"]
        or ["No trigger takes such an event with it: name one by --trigger."]
        * (explain and not shapes),
        exit_code=WeMustAct.exit_code if any(one.rendering == "failed" for one in outcomes) else 0,
    )


def _lines(document: Mapping[str, Any], *, explain: bool) -> Iterator[str]:
    if document["outcome"] != "rendered":
        return
    explain = explain and "sent" in document
    if explain:
        yield f"{document['event']}:"
    yield _pretty(document["body"])
    if explain and document["reason"]:
        yield f"nothing is sent ({document['reason']}): {document['message']}"
    elif explain:
        for part in ("url", "headers", "sent"):
            if (value := document.get(part)) is not None:
                yield f"{part}: {value if isinstance(value, str) else _pretty(value)}"
        for change in document["changes"]:
            yield f"  {change['path']} is {change['did']}: {change['why']}"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


_KINDS: Final = {
    type(None): "null", bool: "boolean", int: "number", float: "number", str: "text",
    list: "empty list", dict: "empty object",
}  # fmt: skip


def diff(
    before: TemplateArgument,
    after: Annotated[str, typer.Argument(help="Another version of it, below the same folder.")],
    *,
    events: Annotated[
        Path | None, typer.Option("--events", help="Of this file of payloads.", metavar="FILE")
    ] = None,
    dead_letters: Annotated[bool, typer.Option("--letters", help="Of the dead letters.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Of what waits.")] = False,
    trigger: TriggerName = "",
    templates: Folder = None,
) -> Result:
    """Compare what two versions of a template make of the same events, by field.

    Both are rendered and shaped; what differs is counted, and no value is shown. Without one of the
    options it is the samples. The exit code is 0, also if they differ.
    """
    workspace = workspace_of(templates)
    versions, there = [workspace.name_of(text) for text in (before, after)], workspace.names()
    if missing := next((name for name in versions if name not in there), ""):
        raise UsageWrong(
            f"{missing}: there is no such template in {workspace.folder}; `git show HEAD:./FILE`"
            " writes an earlier version, which may lie beside it."
        )
    of_redis = (dead_letters, waiting)
    found = compared(*_previews(workspace, trigger, versions, events, of_redis))
    differs = plural(found["different"], "becomes", "become")
    return Result(
        {"before": before, "after": after, **found},
        *_compared_lines(found),
        notes=[f"{plural(found['events'], 'event')} compared, {differs} something else."],
    )


def _previews(
    workspace: Workspace,
    trigger: str,
    versions: Sequence[str],
    events: Path | None,
    of_redis: tuple[bool, bool],
) -> Iterator[list[Previewed]]:
    """Yield what each version makes of the events that were chosen."""
    settings, now = workspace.settings, datetime.now(UTC)
    users = [one for name in reversed(versions) for one in workspace.triggers(name)]
    chosen = workspace.trigger(trigger) if trigger else next(iter(users), None)
    if chosen is None or settings is None:
        if any(of_redis):
            raise UsageWrong("No trigger uses these templates; name one by --trigger.")
        samples: Sequence[Mapping[str, Any]] = load_profiles(events) if events else ()
        if events is None:
            found = (cases_of(workspace.folder, name) for name in versions)
            cases = next(filter(None, found), None) or workspace.cases(versions[0])
            samples = [case.profile for case in cases]
        rows = [sample_row(one, {}) for one in samples]
        yield from (preview_rendering(workspace.folder, name, rows) for name in versions)
        return
    candidates = []
    if events is not None:
        candidates += from_payload(events, read_json_values(events), chosen, settings)
    elif not any(of_redis):
        source, profile = f"The sample of {chosen.name}", profile_for(settings, chosen, now)
        candidates += from_payload(source, profile, chosen, settings)
    if any(of_redis):
        with opened() as (_, client):
            candidates += kept(client, settings, chosen, *of_redis)
    for name in versions:
        yield preview(candidates, settings, trigger=chosen, template=name)


def compared(before: Sequence[Previewed], after: Sequence[Previewed]) -> dict[str, Any]:
    """Compare what two versions make of the same events.

    Returns:
        The numbers of events, of different ones, and of other outcomes (`before → after`), and for
        each field of what is rendered and sent how often it was added, removed or changed, and
        between which kinds of values. No value is kept.
    """
    outcomes: Counter[str] = Counter()
    parts: dict[str, dict[str, dict[str, Any]]] = {"rendered": {}, "sent": {}}
    different = 0
    for old, new in zip(before, after, strict=True):
        ends = (_end(old), _end(new))
        outcomes[" → ".join(ends)] += ends[0] != ends[1]
        is_other = _add(parts["rendered"], old.body, new.body)
        is_other |= _add(parts["sent"], old.sent, new.sent)
        different += is_other or ends[0] != ends[1]
    often = {words: count for words, count in outcomes.most_common() if count}
    by_field = {part: dict(sorted(fields.items())) for part, fields in parts.items()}
    return {"events": len(before), "different": different, "outcomes": often, **by_field}


def _end(one: Previewed) -> str:
    if one.shaping is None:
        return one.rendering
    return "sent" if one.shaped else f"not sent ({one.reason})"


def _add(fields: dict[str, dict[str, Any]], old: Any, new: Any) -> bool:
    """Add the differences between two bodies, and return whether both exist and differ."""
    found = [] if old is None or new is None else list(differences(old, new))
    for path, did, before, after in found:
        counts = {"added": 0, "removed": 0, "changed": 0, "kinds": Counter()}
        field = fields.setdefault(field_of(path), counts)
        field["removed" if did == "left out" else did] += 1
        if did == "changed":
            field["kinds"][" → ".join(_KINDS[type(value)] for value in (before, after))] += 1
    return bool(found)


def _compared_lines(found: Mapping[str, Any]) -> Iterator[str | Table]:
    for words, count in found["outcomes"].items():
        yield f"{plural(count, 'event')}: {words}"
    counts = ("added", "removed", "changed")
    for part in ("rendered", "sent"):
        if found[part]:
            yield f"{part}:"
            yield Table(
                ("field", *count_columns(*counts), *text_columns("how")),
                [
                    (name, *(field[count] for count in counts), ", ".join(often))
                    for name, field in found[part].items()
                    for often in [nlargest(3, field["kinds"], key=field["kinds"].__getitem__)]
                ],
            )


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
    triggers = list(settings.triggers.values())
    if trigger:
        triggers = [configured("trigger", trigger, settings.triggers)]
    documents: list[dict[str, Any]] = []
    problems: list[UsageWrong] = []
    for one in triggers:
        try:
            events = events_for(file, read_json_values(file), one, settings)
        except UsageWrong as error:
            problems.append(error)
            continue
        event = next((event for event in events if one.wants(event.audience)), events[0])
        if trigger or one.wants(event.audience):
            named = {} if trigger else {"trigger": one.name}
            documents.append(named | _tried(event, one, settings))
    if problems and len(problems) == len(triggers):
        raise problems[0]
    if not documents:
        raise UsageWrong(
            f"{file}: no trigger wants an event of it; --trigger tries it with one all the same."
        )
    return Result(
        documents[0] if trigger else documents,
        *(line for document in documents for line in _tried_lines(document)),
        notes=[
            "The trigger does not name this audience: an event like this would not reach it."
            for document in documents
            if not document["event"]["wanted"]
        ],
        exit_code=0 if all(one["outcome"] == "would_be_sent" for one in documents) else 1,
    )


def _tried(event: Event, trigger: Trigger, settings: Settings) -> dict[str, Any]:
    """Preview an event as a delivery of a trigger; it gets the id that rows of it would get."""
    known_id = "" if has_id(event.profile) else _known_id(event.audience)
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


def _known_id(audience: str) -> str:
    """Return the id of an audience that rows of it would get; "" = none, as far as can be told."""
    try:
        with already_there() as (_, client):
            return AudienceStore(client, learns=False).id_of(audience)
    except SegrelayError:
        return ""


def _tried_lines(document: Mapping[str, Any]) -> Iterator[str]:
    told = {name: value for name, value in document.items() if value not in (None, "", [])}
    return fields_of(told | {"outcome": document["outcome"].replace("_", " ")})

"""`segrelay template render`: the events that a template is tried on, and what becomes of them.

Events come from a file, dead letters, or waiting deliveries. The changes that shaping made to a
rendered body are told with the reasons.
"""

from __future__ import annotations

import json as json_text
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from segrelay.jsonnet.rendered import Killed, TemplateBroken, TemplateFailed
from segrelay.ops.dead_letters.commands import candidate_of as candidate_of_dead_letter
from segrelay.ops.dead_letters.reading import find_dead_letters, place_of
from segrelay.ops.state.opened import opened
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.waiting import Filter, WaitingEntry, find_streams, read_entries
from segrelay.ops.templates.workspace import (
    Folder,
    Given,
    TemplateArgument,
    TriggerName,
    Workspace,
    workspace_of,
)
from segrelay.ops.terminal.console import read_json_values
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import object_of
from segrelay.producer.events.payloads import (
    ReadingRules,
    Refused,
    events_of,
    values_of,
)
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
    sample_row,
)
from segrelay.worker.contract.events import Event, decode_profile, header_of
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.settings.sections import with_defaults
from segrelay.worker.destinations.normalise import is_empty
from segrelay.worker.errors import UsageWrong, WeMustAct

_INDEX: Final = re.compile(r"\[\d+\]")
_PERSON: Final = re.compile(r"^users\[\]\.")

_RULES: Final[Sequence[tuple[str, str]]] = (
    (r"identifiers\.email|attributes\.email", "an email is needed: something@example.com"),
    (
        r"(identifiers|attributes)\.phone_number",
        "a phone number that exists is needed, as +14155550123, or one of delivery.phone_region",
    ),
    (r"identifiers\..*", "identifiers that many people share (0, 1, null, anonymous) are blocked"),
    (r"attributes\..*_optin", "an opt-in is true or false; t, f, yes, no, 1 and 0 are understood"),
    (r"attributes\.age", "an age is a number from 0 to 150"),
    (r"attributes\.birthday", "a birthday is a date, or a time in RFC 3339"),
    (r"attributes\.language", "a language is one of ISO 639, as en_US"),
    (r"attributes\.country", "a country is one of ISO 3166, as US"),
    (r"attributes\.(static_segment_id|list_id)", "contact lists are numbers"),
    (
        r"attributes\.(?!custom)\w+",
        "it is none of Insider's own attributes; attributes of yours stand under custom",
    ),
    (r"events\.event_name", "the name of an event begins with a to z or 0 to 9, then also . _ -"),
    (r"events\.timestamp", "the time of an event is in RFC 3339"),
    (r"events.*", "Insider takes event_name, timestamp and event_params of an event"),
    (r"(custom\.)?(partial|whole)", "it names attributes as Insider's attribute/delete takes them"),
)
_CHANGES: Final[Sequence[tuple[str, str]]] = (
    (r"phone_number", "phone numbers are sent in E.164"),
    (r"_optin", "opt-ins are sent as true or false"),
    (r"timestamp|birthday", "times are sent in RFC 3339, in UTC, ending in Z"),
    (r"language", "languages are sent as en_US"),
    (r"country", "countries are sent as two capital letters"),
    (r"email", "emails are sent without spaces, in lower case"),
    (r"age", "ages are sent as numbers"),
    (r"event_name", "names of events are sent in lower case"),
)


_DIDS: Final[tuple[Did, ...]] = ("left out", "changed", "added")


@dataclass(frozen=True, slots=True)
class Change:
    """A field that is sent otherwise than rendered, or not at all.

    Args:
        path: The path in the body, such as `users[0].attributes.age`.
    """

    path: str
    did: Did
    why: str
    before: Any = None
    after: Any = None


def document_of(one: Previewed) -> dict[str, Any]:
    """Return the result for an event as commands print it with `--json`."""
    base: dict[str, Any] = {"event": one.name, "outcome": one.rendering}
    if one.rendering == "skipped":
        return base | {"reason": one.reason, "message": one.message}
    if one.rendering == "failed":
        failed = one.result if isinstance(one.result, TemplateFailed) else TemplateFailed("", "", 0)
        return base | {"message": one.message, "file": failed.file, "line": failed.line}
    if one.shaping is None:
        return base | {"body": one.body}
    return base | {
        "body": one.body,
        "sent": one.sent,
        **one.target,
        "reason": one.reason,
        "message": one.message,
        "changes": [asdict(each) for each in changes_of_previewed(one)],
    }


def changes_of_previewed(one: Previewed) -> list[Change]:
    """Return the changes that shaping made to an event; none if nothing changed or is sent."""
    if one.shaped is None or one.shaped.users == (one.body,):
        return []
    return changes_of(one.body, one.sent, one.shaped.dropped)


def changes_of(body: Any, sent: Any, dropped: Sequence[str]) -> list[Change]:
    """Compare a rendered body with the body that would be sent.

    `dropped` names what shaping found to be wrong.
    """
    found = []
    for path, did, before, after in differences(body, sent):
        match did:
            case "left out":
                why = _why_gone(path, before, dropped)
            case "changed":
                found_why = (why for part, why in _CHANGES if re.search(part, path))
                why = next(found_why, "its form is corrected")
            case "added":
                why = "shaping puts it in"
        found.append(Change(path, did, why, before, after))
    return sorted(found, key=lambda one: _DIDS.index(one.did))


def field_of(path: str) -> str:
    """Return a path without the positions in lists, which is the same for every person."""
    return _INDEX.sub("[]", path)


def _why_gone(path: str, value: Any, dropped: Sequence[str]) -> str:
    if is_empty(value):
        return "it is empty: what is not known is not sent"
    name = _INDEX.sub("", _PERSON.sub("", field_of(path)))
    wrong = next((each for each in dropped if name == each or name.startswith(f"{each}.")), "")
    if not wrong:
        if "too_old" in dropped and name.startswith("events"):
            return "Insider does not write events that are so old"
        return "nothing of what it belongs to is sent"
    return next((why for pattern, why in _RULES if re.fullmatch(pattern, wrong)), "it is not valid")


def preview_named(
    workspace: Workspace, template: str, what: str, trigger: str, given: Mapping[str, Any] | None
) -> list[Previewed]:
    """Render the named events, and shape them if a trigger is known.

    Args:
        workspace: The folder of the templates, with its configuration.
        template: The path below that folder.
        what: A file, or the id of a dead letter.
        trigger: A trigger's name; "" = the one that uses the template, by the event's direction.
        given: Settings instead of the trigger's; with them nothing is shaped.
    """
    settings, path = workspace.settings, Path(what)
    chosen: list[Trigger] = []
    if settings is not None and (given is None or trigger):
        chosen = [workspace.trigger(trigger)] if trigger else workspace.triggers(template)
        if place_of(what) and not path.is_file():
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
        rows = [sample_row(one, with_defaults(given or {})) for one in profiles]
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


def candidate_of_entry(entry: WaitingEntry) -> Candidate | None:
    """Return the event of a waiting delivery; None if this version can't read its entry."""
    if entry.header is None:
        return None
    profile = decode_profile(entry.profile)
    name = f"{entry.stream.lane} {entry.entry_id}"
    return Candidate(name, entry.stream.trigger, entry.header, profile)


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
        yield from islice(filter(None, map(candidate_of_entry, entries)), MOST)


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
    settings: Given = "",
) -> Result:
    """Print what a template makes of each segment event of a payload.

    FILE may also be the id of a dead letter. The exit code is 2 if the template fails for one.
    """
    workspace = workspace_of(templates)
    name = workspace.name_of(template)
    outcomes = preview_named(
        workspace, name, file, trigger, object_of(settings, "--settings") if settings else None
    )
    for number, one in enumerate(outcomes, 1):
        if isinstance(one.result, Killed):
            raise TemplateBroken(
                f"{name}: rendering event {number} of {len(outcomes)} ends or hangs the process.",
                name,
            )
    return Result(
        [document_of(one) for one in outcomes],
        *(line for one in outcomes for line in _lines(one, explain=explain)),
        notes=[one.in_words for one in outcomes if one.rendering != "rendered"]
        or ["No trigger takes such an event with it: name one by --trigger."]
        * (explain and not any(one.shaping for one in outcomes)),
        exit_code=WeMustAct.exit_code if any(one.rendering == "failed" for one in outcomes) else 0,
    )


def _lines(one: Previewed, *, explain: bool) -> Iterator[str]:
    if one.rendering != "rendered":
        return
    if not explain or not one.shaping:
        yield _pretty(one.body)
        return
    yield f"{one.name}:"
    yield _pretty(one.body)
    if one.sent is None:
        yield f"nothing is sent ({one.reason}): {one.message}"
        return
    for part, value in (*one.target.items(), ("sent", one.sent)):
        yield f"{part}: {value if isinstance(value, str) else _pretty(value)}"
    for change in changes_of_previewed(one):
        yield f"  {change.path} is {change.did}: {change.why}"


def _pretty(value: Any) -> str:
    return json_text.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)

"""The events that a template is tried on, from a file, dead letters, or waiting deliveries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from segrelay.ops.dead_letters.commands import candidate_of as candidate_of_dead_letter
from segrelay.ops.dead_letters.reading import find_dead_letters, place_of
from segrelay.ops.state.opened import opened
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.waiting import Filter, WaitingEntry, find_streams, read_entries
from segrelay.ops.templates.workspace import Workspace
from segrelay.ops.terminal.console import read_json_values
from segrelay.producer.events.payloads import (
    ReadingRules,
    Refused,
    events_of,
    values_of,
)
from segrelay.producer.publishing.drafting import export
from segrelay.worker.checks.preview import (
    Candidate,
    Previewed,
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
from segrelay.worker.errors import UsageWrong


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

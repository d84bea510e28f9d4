"""The events that a template is tried on, from a file, dead letters, or waiting deliveries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from pathlib import Path
from typing import Any, Final

from segrelay.ops.dead_letters.reading import find_dead_letters, place_of
from segrelay.ops.dead_letters.replay import candidate_of as candidate_of_dead_letter
from segrelay.ops.kept import Filter
from segrelay.ops.state.opened import opened
from segrelay.ops.state.partitions import all_partitions
from segrelay.ops.state.person import person_named
from segrelay.ops.state.waiting import Choice, WaitingEntry, find_streams, read_entries
from segrelay.ops.templates.workspace import Workspace
from segrelay.ops.terminal.console import read_json_values
from segrelay.producer.events.payloads import (
    ReadingRules,
    Refused,
    ResolveAudience,
    events_of,
    values_of,
)
from segrelay.producer.publishing.drafting import export
from segrelay.worker.checks.preview import Candidate, Previewed, preview, preview_rendering
from segrelay.worker.checks.samples import entry_of, load_profiles
from segrelay.worker.contract.events import Event, decode_profile, header_of
from segrelay.worker.contract.keys import PartitionKeys
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
        what: A file, the id of a dead letter, or the identity of a person.
        trigger: A trigger's name; "" = the one that uses the template, by the event's direction.
        given: Settings instead of the trigger's; with them nothing is shaped.
    """
    settings, path, own = workspace.settings, Path(what), with_defaults(given or {})
    if settings is None or (given is not None and not trigger):
        return preview_rendering(workspace.folder, template, load_profiles(path), own)
    chosen = [workspace.trigger(trigger)] if trigger else workspace.triggers(template)
    if path.is_file():
        profiles = load_profiles(path)
        ways = {entry_of(profile).get("event") for profile in profiles}
        fitting = {one.on: one for one in reversed(chosen) if one.on in ways}
        if not fitting and len(chosen) != 1:
            return preview_rendering(workspace.folder, template, profiles, own)
        events = [(one, from_file(path, one, settings)) for one in fitting.values() or chosen]
    else:
        events = [(_trigger_for(one, settings, chosen), [one]) for one in _of_redis(what)]
    return [
        previewed
        for one, candidates in events
        for previewed in preview(candidates, settings, trigger=one, template=template)
    ]


def _of_redis(what: str) -> list[Candidate]:
    """Return the events of a dead letter, or of a person of whom something waits."""
    if "/" in what or what.endswith((".json", ".ndjson")):
        raise UsageWrong(f"{what}: can't be read (No such file or directory).")
    with opened() as (settings, client):
        if place_of(what):
            return [of_dead_letter(client, settings, what)]
        return of_person(client, settings, what)


def _trigger_for(candidate: Candidate, settings: Settings, chosen: list[Trigger]) -> Trigger:
    """Return the trigger for an event from Redis: its own, or the one that was named."""
    own = settings.triggers.get(candidate.trigger)
    if own is not None and (not chosen or own in chosen):
        return own
    if chosen:
        return chosen[0]
    raise UsageWrong(
        f"The event is one of {candidate.trigger}, which the configuration does not have; name"
        " another by --trigger."
    )


MOST: Final = 10_000
"""Largest number of events that a comparison reads of each kind: dead letters, and waiting ones."""


@dataclass(frozen=True, slots=True)
class WantedEvents:
    """A choice of events of one trigger."""

    dead_letters: bool = False
    waiting: bool = False
    recent: int = 0

    @property
    def is_any(self) -> bool:
        """Say whether any events from Redis are chosen."""
        return self.dead_letters or self.waiting or self.recent > 0


def from_file(path: Path, trigger: Trigger, settings: Settings) -> list[Candidate]:
    """Return the events of a file that have a trigger's direction."""
    return from_payload(path, read_json_values(path), trigger, settings)


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


def of_dead_letter(client: Redis, settings: Settings, dead_letter_id: str) -> Candidate:
    """Return the event of a dead letter."""
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


def of_person(client: Redis, settings: Settings, text: str) -> list[Candidate]:
    """Return the events that wait for a person, named by the identity."""
    person = person_named(text, settings)
    partitions = [one for one in all_partitions(client, settings) if one.number == person.partition]
    found = list(_waiting(client, partitions, Choice(), person.digest))
    if not found:
        raise UsageWrong(f"{text} is no file, no dead letter, and nobody of whom something waits.")
    return found


def candidate_of_entry(entry: WaitingEntry) -> Candidate | None:
    """Return the event of a waiting delivery; None if this version can't read its entry."""
    if entry.header is None:
        return None
    profile = decode_profile(entry.profile)
    name = f"{entry.stream.lane} {entry.entry_id}"
    return Candidate(name, entry.stream.trigger, entry.header, profile)


def kept(
    client: Redis, settings: Settings, trigger: Trigger, wanted: WantedEvents
) -> list[Candidate]:
    """Return the events of a trigger that Redis holds.

    What was delivered is no longer there: `recent` are the newest of what waits and what is dead.
    """
    partitions = all_partitions(client, settings, [trigger.destination])
    found: list[Candidate] = []
    if wanted.dead_letters or wanted.recent:
        dead_letters = find_dead_letters(client, partitions, Filter(trigger=trigger.name))
        found += islice(filter(None, map(candidate_of_dead_letter, dead_letters)), MOST)
    if wanted.waiting or wanted.recent:
        found += islice(_waiting(client, partitions, Choice(trigger=trigger.name)), MOST)
    if wanted.recent:
        return nlargest(wanted.recent, found, key=lambda one: one.header.accepted_ms)
    return found


def _waiting(
    client: Redis, partitions: Sequence[PartitionKeys], choice: Choice, digest: bytes = b""
) -> Iterator[Candidate]:
    """Yield the events that wait (of one person), without those that this version can't read."""
    for stream in find_streams(client, partitions, choice):
        for entry in read_entries(client, stream):
            if digest and not (entry.header and entry.header.digest == digest):
                continue
            if candidate := candidate_of_entry(entry):
                yield candidate


def slug_or_id(audience_id: str, slug: str) -> str:
    """Return the name of an audience without asking Redis for the slug of an id."""
    return slug or audience_id


def events_for(
    source: object,
    payload: Any,
    trigger: Trigger,
    settings: Settings,
    resolve_audience: ResolveAudience = slug_or_id,
) -> list[Event]:
    """Return the events of a payload that have the direction of a trigger; there is at least one.

    Messages name the source of the payload.
    """
    now_us = time.time_ns() // 1_000
    reading = ReadingRules(
        now_us,
        now_us,
        settings.delivery.identity,
        resolve_audience,
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
    packed, _ = export(event.profile, trigger.export_fields, settings.delivery.identity)
    header = header_of(event, accepted_ms=time.time_ns() // 1_000_000)
    return Candidate(name, trigger.name, header, decode_profile(packed))

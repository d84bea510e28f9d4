"""Trying one event: which one of a file, and what a trigger's template makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from producer.events.payloads import ReadingRules, Refused, ResolveAudience, events_of
from producer.publishing.matching import export
from worker.checks.rehearsal import Candidate, Rehearsed, rehearse
from worker.contract.events import Event, decode_profile, header_of
from worker.contract.settings import Settings, Trigger
from worker.destinations.api import Shaped
from worker.errors import UsageWrong


@dataclass(frozen=True, slots=True)
class Attempt:
    """An event, the trigger it is tried with, and what came of rendering it."""

    event: Event
    trigger: Trigger
    candidate: Candidate
    rehearsed: Rehearsed


def event_of(
    path: Path,
    trigger: Trigger,
    settings: Settings,
    *,
    now_us: int,
    resolve_audience: ResolveAudience,
) -> Event:
    """Return the event of a file that a trigger would be tried with: of its direction.

    Raises:
        UsageWrong: The file can't be read, or has none.
    """
    reading = ReadingRules(
        now_us,
        now_us,
        settings.delivery.identity,
        resolve_audience,
        state=False,
        skip_hook=bool(trigger.skip_hook),
    )
    found = list(events_of(_parsed(path), reading))
    events = [event for event in found if isinstance(event, Event)]
    fitting = [event for event in events if event.direction == trigger.on]
    wanted = [event for event in fitting if trigger.wants(event.audience)]
    if fitting:
        return (wanted or fitting)[0]
    refused = [item for item in found if isinstance(item, Refused)]
    if refused and not events:
        raise UsageWrong(f"{path}: {refused[0].reason.value}: {refused[0].message}")
    raise UsageWrong(f"{path}: holds no {trigger.on} event, which {trigger.name} is for.")


def _parsed(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise UsageWrong(f"{path}: can't be read ({error.strerror}).") from error
    except orjson.JSONDecodeError as error:
        raise UsageWrong(f"{path}:{error.lineno}: is not JSON ({error.msg}).") from error


def packed_of(event: Event, trigger: Trigger, settings: Settings) -> bytes:
    """Return the profile that a delivery of an event carries, packed."""
    fields = trigger.export_fields
    identity = settings.delivery.identity
    packed = export(event.profile, fields, identity)
    return packed.text


def candidate_of(
    event: Event, trigger: Trigger, settings: Settings, *, name: str = "", now_us: int
) -> Candidate:
    """Return what a delivery of an event would be rendered from."""
    header = header_of(event, accepted_ms=now_us // 1000)
    profile = decode_profile(packed_of(event, trigger, settings))
    return Candidate(name, trigger.name, header, profile)


def attempt_of(event: Event, trigger: Trigger, settings: Settings, *, now_us: int) -> Attempt:
    """Render and shape an event as a delivery of a trigger."""
    candidate = candidate_of(event, trigger, settings, now_us=now_us)
    (rehearsed,) = rehearse([candidate], settings, now_us=now_us)
    return Attempt(event, trigger, candidate, rehearsed)


def who_of(shaped: Shaped) -> Mapping[str, Any]:
    """Return by what the destination knows the person."""
    user = shaped.users[0] if shaped.users else {}
    return {key: user[key] for key in ("identifiers", "insider_id") if key in user}

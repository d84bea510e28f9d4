"""The events of a payload, as deliveries of a trigger that can be rehearsed or sent."""

from __future__ import annotations

from typing import Any

from producer.events.payloads import ReadingRules, Refused, ResolveAudience, events_of
from producer.publishing.matching import export
from worker.checks.rehearsal import Candidate
from worker.contract.events import Event, decode_profile, header_of
from worker.contract.settings import Settings, Trigger
from worker.errors import UsageWrong


def slug_or_id(audience_id: str, slug: str) -> str:
    """Return the name of an audience without asking Redis for the slug of an id."""
    return slug or audience_id


def events_for(
    source: object,
    payload: Any,
    trigger: Trigger,
    settings: Settings,
    *,
    now_us: int,
    resolve_audience: ResolveAudience = slug_or_id,
) -> list[Event]:
    """Return the events of a payload that have the direction of a trigger; there is at least one.

    Messages name the source of the payload.
    """
    reading = ReadingRules(
        now_us,
        now_us,
        settings.delivery.identity,
        resolve_audience,
        state=False,
        skip_hook=bool(trigger.skip_hook),
    )
    found = list(events_of(payload, reading))
    events = [one for one in found if isinstance(one, Event)]
    fitting = [event for event in events if event.direction == trigger.on]
    if fitting:
        return fitting
    refused = next((one for one in found if isinstance(one, Refused)), None)
    if refused and not events:
        raise UsageWrong(f"{source}: {refused.reason.value}: {refused.message}")
    raise UsageWrong(f"{source}: holds no {trigger.on} event, which {trigger.name} is for.")


def candidate_of(
    event: Event, trigger: Trigger, settings: Settings, *, name: str = "", now_us: int
) -> Candidate:
    """Return the delivery of an event that a trigger would make, to be rehearsed."""
    fields = trigger.export_fields
    identity = settings.delivery.identity
    packed, _ = export(event.profile, fields, identity)
    header = header_of(event, accepted_ms=now_us // 1000)
    return Candidate(name, trigger.name, header, decode_profile(packed))

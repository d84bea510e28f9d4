"""Which triggers keep a list of audiences, and in which attribute: seen by rendering a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from worker.adapters.isolated_renderer import Killed, render_isolated
from worker.adapters.renderer import Rendered, Row
from worker.adapters.template_check import RENDER_MEMORY_BYTES, RENDER_SECONDS
from worker.adapters.template_samples import load_profiles, sample_profile
from worker.contract.settings import AUDIENCE_ATTRIBUTE, Settings, Trigger
from worker.contract.words import Direction
from worker.errors import SegrelayError

_DELETES: Final = "/attribute/delete"


def list_of(settings: Settings, trigger: Trigger) -> str:
    """Return the attribute that a trigger's deliveries keep a list of audiences in; "" = none.

    Where the sample does not render, its direction and path decide.
    """
    attribute = str(trigger.settings[AUDIENCE_ATTRIBUTE])
    users = sample_users(settings, trigger)
    if users is None:
        is_kept = trigger.on == "enter" or _DELETES in trigger.url
    else:
        is_kept = any(_names(user, attribute) for user in users)
    return attribute if is_kept else ""


def sample_users(settings: Settings, trigger: Trigger) -> list[dict[str, Any]] | None:
    """Return the users that a trigger's template makes of its sample; None if it does not."""
    try:
        results = render_isolated(
            settings.templates_folder,
            trigger.template,
            [Row(orjson.dumps(_sample(settings, trigger)))],
            trigger.settings,
            seconds=RENDER_SECONDS,
            memory_bytes=RENDER_MEMORY_BYTES,
        )
    except SegrelayError:
        return None
    if isinstance(results, Killed) or not isinstance(results[0], Rendered):
        return None
    body = orjson.loads(results[0].body)
    users = body.get("users") if isinstance(body, dict) else None
    return [user for user in users if isinstance(user, dict)] if isinstance(users, list) else None


def _sample(settings: Settings, trigger: Trigger) -> dict[str, Any]:
    path = settings.sample_path(trigger)
    if path is None:
        return sample_profile(Direction(trigger.on))
    profiles = load_profiles(path)
    return next((one for one in profiles if _direction(one) == trigger.on), profiles[0])


def _direction(profile: Mapping[str, Any]) -> object:
    entry = profile["segment_events"][0]
    return entry.get("event") if isinstance(entry, dict) else None


def _names(user: Mapping[str, Any], attribute: str) -> bool:
    attributes = user.get("attributes")
    custom = attributes.get("custom") if isinstance(attributes, dict) else None
    if isinstance(custom, dict) and attribute in custom:
        return True
    removed = user.get("custom")
    if not isinstance(removed, dict):
        return False
    partial, whole = removed.get("partial"), removed.get("whole")
    return (isinstance(partial, dict) and attribute in partial) or (
        isinstance(whole, list) and attribute in whole
    )

"""The sample payloads as profiles that a template gets, and the finding of a check."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from segrelay.jsonnet.rendered import Row
from segrelay.templates import SAMPLES_FOLDER
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.settings.sections import SyncSchedule
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import UsageWrong

ANY_ID: Final = "0" * 32
"""An id of an audience, to see whether an event without one fails for want of it."""
_WRITTEN_AT: Final = datetime(2026, 11, 8, 9, 31, tzinfo=UTC)
"""The moment at which the shipped samples were written: no time in them is later."""
_ANY_TIME_US: Final = 1_767_225_600_000_000
_TIME: Final = re.compile(r"(?<=\")(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?=(?:\.\d+)?Z\")")


def fresh_sample(direction: Direction, now: datetime) -> str:
    """Return a shipped sample's text as if it had been written now.

    Insider takes no event of its customers that is older than three months.
    """
    shift = now.replace(microsecond=0) - _WRITTEN_AT
    text = (SAMPLES_FOLDER / f"{direction.value}.json").read_text("utf-8")
    return _TIME.sub(lambda found: (datetime.fromisoformat(found[1]) + shift).isoformat(), text)


def sample_profile(direction: Direction, now: datetime) -> dict[str, Any]:
    """Return the shipped sample's profile, with one entry of that direction in `segment_events`."""
    return profiles_of(orjson.loads(fresh_sample(direction, now)))[0]


def profile_for(settings: Settings, trigger: Trigger, now: datetime) -> dict[str, Any]:
    """Return the profile that a trigger is tried on: its own sample, else the shipped one.

    Raises:
        UsageWrong: Its own can't be read, or has no event of its direction.
    """
    path = settings.sample_path(trigger)
    if path is None:
        return sample_profile(Direction(trigger.on), now)
    for profile in load_profiles(path):
        if entry_of(profile).get("event") == trigger.on:
            return profile
    raise UsageWrong(f"{path}: holds no {trigger.on} event, which this trigger is for.")


def entry_of(profile: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the one segment event of a profile."""
    entry = profile["segment_events"][0]
    return entry if isinstance(entry, dict) else {}


def sample_row(profile: Mapping[str, Any], settings: Mapping[str, Any]) -> Row:
    """Return a sample as a row to render.

    One whose event has no time, such as a change, gets any: a delivery always has one.
    """
    entry = next(iter(profile.get("segment_events") or ()), None)
    is_timed = isinstance(entry, dict) and entry.get(str(entry.get("event")))
    text = orjson.dumps(dict(profile))
    return Row(text, settings, 0 if is_timed else _ANY_TIME_US)


def load_profiles(path: Path) -> list[dict[str, Any]]:
    """Read payloads, wrapped or not, as profiles with exactly one entry in `segment_events` each.

    Raises:
        UsageWrong: The file can't be read, or holds no payload.
    """
    try:
        content = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UsageWrong(f"{path}: can't be read ({error.strerror}).") from error
    except orjson.JSONDecodeError as error:
        message = f"{path}:{error.lineno}:{error.colno}: is not JSON ({error.msg})."
        raise UsageWrong(message) from error
    payloads = content if isinstance(content, list) else [content]
    profiles = [profile for payload in payloads for profile in profiles_of(payload)]
    if not profiles:
        raise UsageWrong(
            f"{path}: holds no payload; expected is an object with segment_events, or with `data`"
            " that has them."
        )
    return profiles


def profiles_of(payload: object) -> list[dict[str, Any]]:
    """Return a profile for each segment event of a payload; none where it is no payload."""
    if not isinstance(payload, dict):
        return []
    wrapped = payload.get("data")
    profile = wrapped if isinstance(wrapped, dict) else payload
    events = profile.get("segment_events")
    if not isinstance(events, list):
        return []
    if "_id" not in profile and wrapped is profile and isinstance(payload.get("id"), str):
        profile = {**profile, "payload_id": payload["id"]}
    return [{**profile, "segment_events": [event]} for event in events]


Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the owner of a template or trigger should know.

    Args:
        severity: An error makes a template unfit and stops its triggers; a warning is worth a look.
        message: The problem and what to do; begins with its location where there is one.
        trigger: "" where it is about a template as such.
        file: "" where it is about no place.
        line: 1-based, 0 for none.
        column: 1-based, 0 for none.
    """

    severity: Severity
    message: str
    trigger: str = ""
    file: str = ""
    line: int = 0
    column: int = 0


def in_want_of_id(
    failure: str, audiences: Sequence[str], syncs: Iterable[SyncSchedule] = ()
) -> str:
    """Say that events of audiences fail for want of an id, and what to do about it.

    Args:
        failure: The error message, with the place in the template where it is known.
        audiences: Slugs whose id is not known; none where it is not known which they are.
        syncs: As configured.
    """
    locations = " and ".join(f"[sync.{one.name}]" for one in syncs if one.audience in audiences)
    audience = audiences[0] if len(audiences) == 1 else "SLUG"
    return (
        f"{failure.removesuffix('.')}. Events that are made from rows of a backfill, sync or repair"
        " have no id in segment_events as long as no id is known for"
        f" {', '.join(audiences) or 'their audience'}, and die of this: set audience_id in"
        f" {locations or '[sync.NAME]'}, give --audience-id to the backfill, or map the id by"
        f" `segrelay audience set ID {audience}`."
    )

"""The shipped sample payloads, and any payload file, as the profile that a template gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson

from worker.adapters.template_files import SHIPPED_FOLDER
from worker.contract.words import Direction
from worker.errors import UsageWrong

SAMPLES_FOLDER: Final = SHIPPED_FOLDER / "samples"


def sample_profile(direction: Direction) -> dict[str, Any]:
    """Return the shipped sample's profile, with one entry of that direction in `segment_events`."""
    return load_profiles(SAMPLES_FOLDER / f"{direction.value}.json")[0]


def load_profiles(path: Path) -> list[dict[str, Any]]:
    """Read payloads, wrapped or not, as profiles with exactly one entry in `segment_events` each.

    Args:
        path: A JSON object or an array of them.

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
    profiles = [profile for payload in payloads for profile in _profiles_of(payload)]
    if not profiles:
        raise UsageWrong(
            f"{path}: holds no payload; expected is an object with segment_events, or with `data`"
            " that has them."
        )
    return profiles


def _profiles_of(payload: object) -> list[dict[str, Any]]:
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

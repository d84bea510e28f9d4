"""Masking: what is shown of payloads, profiles and bodies to those who may not see the data."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any, Final

MASK: Final = "•••"
_SHOWN_ELEMENTS: Final = 20
_SEGMENT_EVENTS: Final = "segment_events"
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.]*(Z|[+-]\d\d:?\d\d)?")
_PUBLIC: Final = {
    "slug": _NAME,
    "id": _NAME,
    "event": re.compile("enter|exit"),
    "enter": _TIME,
    "exit": _TIME,
    "timestamp": _TIME,
    "time": _TIME,
    "type": _NAME,
    "specversion": _NAME,
    "source": re.compile(r"[A-Za-z0-9_.:/-]{1,128}"),
}
"""The fields of a segment event and its envelope that are no personal data as long as their
values match these patterns."""


def masked_payload(payload: Any) -> Any:
    """Return a payload whose profile fields are masked; names, times and audiences stay."""
    if not (isinstance(payload, dict) and isinstance(payload.get("data"), dict)):
        return masked_profile(payload)
    around = {key: value for key, value in payload.items() if key != "data"}
    meta = {"meta": public_only(around["meta"])} if "meta" in around else {}
    return public_only(around) | meta | {"data": masked_profile(payload["data"])}


def masked_profile(profile: Any) -> Any:
    """Return a profile whose fields are masked; its segment event stays."""
    if not isinstance(profile, dict):
        return hidden(profile)
    return {
        key: public_only(value) if key == _SEGMENT_EVENTS else hidden(value)
        for key, value in profile.items()
    }


def public_only(value: Any) -> Any:
    """Mask a value, except names of audiences, directions and times."""
    if isinstance(value, list):
        return [public_only(one) for one in islice(value, _SHOWN_ELEMENTS)]
    if not isinstance(value, dict):
        return hidden(value)
    return {key: one if _is_public(key, one) else hidden(one) for key, one in value.items()}


def _is_public(key: str, value: Any) -> bool:
    shape = _PUBLIC.get(key)
    return shape is not None and isinstance(value, str) and shape.fullmatch(value) is not None


def cut(value: Any) -> Any:
    """Shorten lists to what is shown of them masked."""
    if isinstance(value, dict):
        return {key: cut(element) for key, element in value.items()}
    if isinstance(value, list):
        return [cut(element) for element in islice(value, _SHOWN_ELEMENTS)]
    return value


def hidden(value: Any) -> Any:
    """Mask a value; keys and nesting stay."""
    if isinstance(value, dict):
        return {key: hidden(element) for key, element in value.items()}
    if isinstance(value, list):
        return [hidden(element) for element in islice(value, _SHOWN_ELEMENTS)]
    return MASK if value is not None else None

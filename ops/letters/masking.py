"""Masking of dead letters: names, times and audiences are printed, profile fields are not."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from ops.terminal.console import json_or_text
from worker.core.messages import normalise_message

MASK: Final = "•••"
_SHOWN_ELEMENTS: Final = 20
_SEGMENT_EVENTS: Final = "segment_events"


def shown(letter: dict[str, Any], *, reveal: bool) -> dict[str, Any]:
    """Return a letter as it is printed: with its body as JSON, and masked unless revealed."""
    body = json_or_text(letter["body"])
    public = {key: value for key, value in letter.items() if key not in {"header", "entry"}}
    if reveal:
        return public | {"body": body}
    return public | {
        "message": normalise_message(letter["message"]),
        "body": hidden(body) if body else body,
        "answer": normalise_message(letter["answer"]),
        "profile": masked_profile(letter["profile"]),
    }


def masked_profile(profile: Any) -> Any:
    """Return a profile whose fields are masked; its segment event stays."""
    if not isinstance(profile, dict):
        return hidden(profile)
    return {
        key: value if key == _SEGMENT_EVENTS else hidden(value) for key, value in profile.items()
    }


def hidden(value: Any) -> Any:
    """Mask a value; keys and nesting stay."""
    if isinstance(value, dict):
        return {key: hidden(element) for key, element in value.items()}
    if isinstance(value, list):
        return [hidden(element) for element in islice(value, _SHOWN_ELEMENTS)]
    return MASK if value is not None else None

"""What of a dead letter may be printed: names, times and audiences, but no profile field."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any, Final

import orjson

from worker.destinations.answers import normalise_message

MASK: Final = "•••"
_SHOWN_ELEMENTS: Final = 20
_PLACE: Final = re.compile(r"[\w./-]+\.(?:jsonnet|libsonnet):\d+: ")
_SEGMENT_EVENTS: Final = "segment_events"


def shown(letter: dict[str, Any], *, reveal: bool) -> dict[str, Any]:
    """Return a letter as it is printed: the body as JSON, and all of it masked unless revealed."""
    body = _json(letter["body"])
    public = {key: value for key, value in letter.items() if key != "header"}
    if reveal:
        return public | {"body": body}
    return public | {
        "message": masked_message(letter["message"]),
        "body": hidden(body) if body else body,
        "answer": normalise_message(letter["answer"]),
        "profile": masked_profile(letter["profile"]),
    }


def masked_message(message: str) -> str:
    """Return a message without values; the place in a template stays."""
    place = _PLACE.match(message)
    begin = place[0] if place else ""
    return begin + normalise_message(message[len(begin) :])


def _json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def masked_profile(profile: Any) -> Any:
    """Return a profile whose fields are masked; its segment event stays."""
    if not isinstance(profile, dict):
        return hidden(profile)
    return {
        key: value if key == _SEGMENT_EVENTS else hidden(value) for key, value in profile.items()
    }


def hidden(value: Any) -> Any:
    """Mask a value but for its shape."""
    if isinstance(value, dict):
        return {key: hidden(element) for key, element in value.items()}
    if isinstance(value, list):
        return [hidden(element) for element in islice(value, _SHOWN_ELEMENTS)]
    return MASK if value is not None else None

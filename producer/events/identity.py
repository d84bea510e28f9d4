"""The key of a profile: `field:value` of the one configured identity field."""

from __future__ import annotations

from typing import Any, Final

from worker.contract.keys import identity_text
from worker.contract.words import Refusal
from worker.errors import PayloadRefused

ID: Final = "id"
"""The identity that means `_id`, or the payload's own id where the profile has none."""
PROFILE_ID: Final = "_id"
PAYLOAD_ID: Final = "payload_id"
_LONGEST: Final = 512


def profile_key(profile: dict[str, Any], identity: str) -> str:
    """Return the key of a profile whose `payload_id` is already in place.

    Raises:
        PayloadRefused: `no_identity`.
    """
    return f"{identity}:{_text(profile.get(identity_field(profile, identity)), identity)}"


def identity_field(profile: dict[str, Any], identity: str) -> str:
    """Return which of the profile's fields holds its identity."""
    if identity != ID:
        return identity
    value = profile.get(PROFILE_ID)
    return PAYLOAD_ID if value is None or value == "" else PROFILE_ID


def _text(value: object, identity: str) -> str:
    if isinstance(value, str):
        text = identity_text(value, identity)
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    elif isinstance(value, float):
        raise _missing(f"The number in `{identity}` is not a whole one that JSON holds exactly.")
    elif value is None:
        raise _missing(f"The profile has no `{identity}`, which is its identity.")
    else:
        raise _missing(f"`{identity}` is neither a text nor a whole number.")
    if not text:
        raise _missing(f"`{identity}`, the profile's identity, is empty.")
    if len(text) > _LONGEST:
        raise _missing(f"`{identity}` is longer than {_LONGEST} characters.")
    return text


def _missing(message: str) -> PayloadRefused:
    return PayloadRefused(Refusal.NO_IDENTITY, message)

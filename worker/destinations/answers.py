"""What all APIs read from an answer alike: its status, its message, `Retry-After`."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import orjson

from worker.core.verdicts import (
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Verdict,
)
from worker.destinations.api import Answer

MESSAGE_CHARACTERS: Final = 200

_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN = 400, 401, 403
_TOO_LARGE, _TOO_MANY = 413, 429
_NOT_READ: Final = frozenset({407, 408, 425})
"""A proxy's credentials, a request that did not arrive whole, or too early: not about the body."""

_EMAIL: Final = re.compile(r"[^\s\"'<>(),;:]+@[^\s\"'<>(),;:]+")
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`")
_NAME: Final = re.compile(
    r"[\"'`][a-z]+(?:[._][a-z]+)+[\"'`]|[\"'`](?:email|uuid|users|events)[\"'`]"
)
_HEX: Final = re.compile(r"\b(?=[0-9a-fA-F-]*[0-9])[0-9a-fA-F]{8}[0-9a-fA-F-]{8,}\b")
_PHONE: Final = re.compile(r"\+?[0-9][0-9 ()./-]{5,}[0-9]")
_NUMBER: Final = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
_TAG: Final = re.compile(r"<[^>]*>")
_SPACE: Final = re.compile(r"\s+")
_READ_CHARACTERS: Final = 2_000


def normalise_message(text: str) -> str:
    """Return a message without what differs from person to person, to group by and to show.

    Emails, numbers, hashes and what stands in quotes are replaced; a field's name in quotes stays.
    A value that stands bare in the text can't be told from it.
    """
    text = _TAG.sub(" ", text[:_READ_CHARACTERS])
    text = _EMAIL.sub("<email>", text)
    text = _QUOTED.sub(_unless_name, text)
    text = _HEX.sub("<id>", text)
    text = _PHONE.sub("<number>", text)
    text = _NUMBER.sub("<n>", text)
    return _SPACE.sub(" ", text).strip()[:MESSAGE_CHARACTERS]


def _unless_name(found: re.Match[str]) -> str:
    return found[0] if _NAME.fullmatch(found[0]) else "<value>"


def parsed(body: bytes) -> Any:
    """Return the JSON of a body, or None where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def retry_after_seconds(text: str) -> float | None:
    """Read `Retry-After` as the sender hands it on: seconds, as text; dates are resolved there."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def classify_status(answer: Answer, message: str) -> Verdict:
    """Say what any status but a 2xx means where the API has nothing more to say about it."""
    status = answer.status
    told = f"{status}: {message}" if message else str(status)
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        return AccessRefused(told)
    if status == _TOO_LARGE:
        return TooLarge(told)
    if status == _TOO_MANY:
        return SlowDown(retry_after_seconds(answer.retry_after))
    if status in _NOT_READ:
        return Failed(str(status))
    if _BAD_REQUEST <= status < 500:  # noqa: PLR2004 - the class of a client's errors
        return BodyRefused(told)
    # A redirect is not followed: it leads elsewhere, for a while, everything that is sent.
    return Failed(str(status), possibly_applied=not 300 <= status < 400)  # noqa: PLR2004 - redirects

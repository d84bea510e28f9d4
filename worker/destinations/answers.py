"""Reading of answers that all APIs share: status, message, `Retry-After`."""

from __future__ import annotations

import math
from typing import Final

from worker.core.verdicts import (
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Verdict,
)
from worker.destinations.api import Answer

_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN = 400, 401, 403
_TOO_LARGE, _TOO_MANY = 413, 429
_NOT_READ: Final = frozenset({407, 408, 425})
"""Statuses that are not about the body: proxy credentials, a timeout, a request too early."""


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

"""Times and durations: parsing and printing them, and waiting for something."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from segrelay.worker.contract.settings.values import parse_duration
from segrelay.worker.errors import UsageWrong

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def shown_ms(milliseconds: int, precision: str = "milliseconds") -> str:
    """Format milliseconds since 1970 as RFC 3339, in UTC."""
    return _rfc_3339(_EPOCH + timedelta(milliseconds=milliseconds), precision)


def shown_us(microseconds: int) -> str:
    """Format microseconds since 1970 as RFC 3339, in UTC."""
    return _rfc_3339(_EPOCH + timedelta(microseconds=microseconds), "microseconds")


def _rfc_3339(moment: datetime, precision: str) -> str:
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def parse_moment_ms(text: str, option: str, *, now_ms: int) -> int:
    """Read an RFC 3339 moment, a date (in UTC), or a duration that counts back from now.

    "" is read as 0. Messages name the option.
    """
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    try:
        return now_ms - round(1000 * parse_duration(text))
    except ValueError:
        raise UsageWrong(
            f"{option} {text}: write a moment like 2026-11-24T10:00:00Z, or how long ago, like 2h."
        ) from None


def parse_seconds(text: str, option: str) -> float:
    """Read a duration like 90s, 15m or 2h."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageWrong(f"{option} {text}: {error}; write 90s, 15m or 2h.") from error


_Found = TypeVar("_Found")


def awaited(look: Callable[[], _Found], seconds: float, look_every_seconds: float = 0.05) -> _Found:
    """Call `look` until it finds something or the time is up; return its last result."""
    ends_at = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < ends_at:
        time.sleep(look_every_seconds)
    return found

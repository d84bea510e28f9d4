"""The time of an event: RFC 3339 text to microseconds since 1970, and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from worker.contract.words import Refusal
from worker.errors import PayloadRefused

MICROSECONDS: Final = 1_000_000
FUTURE_TOLERANCE_US: Final = 5 * 60 * MICROSECONDS

_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):?(\d\d))",
    re.ASCII,
)
_LEAP_SECOND: Final = 60
_LAST_SECOND: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
_MINUTE: Final = 60
_HOURS: Final = 24
_HARMLESS: Final = re.compile(r"[-0-9TZtz:+. ]{1,40}", re.ASCII)


def parse_time(value: object) -> int:
    """Return µs since 1970 of an RFC 3339 time; digits beyond the sixth are cut off.

    Raises:
        PayloadRefused: `bad_time`.
    """
    match = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _bad(f"{_shown(value)} is not an RFC 3339 time such as 2026-11-01T10:00:00Z.")
    day, minute, second, fraction, zulu, sign, hours, minutes = match.groups()
    seconds = _minute_start(day, minute) + _checked_second(second)
    if not zulu:
        seconds -= _offset(sign, int(hours), int(minutes))
    if seconds <= 0:
        raise _bad(f"{_shown(value)} is before 1970.")
    if seconds > _LAST_SECOND:
        raise _bad(f"{_shown(value)} is after the year 9999 in UTC.")
    return seconds * MICROSECONDS + (int(fraction[:6].ljust(6, "0")) if fraction else 0)


def format_time(time_us: int) -> str:
    """Return the RFC 3339 text of µs since 1970, in UTC."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    return moment.isoformat().replace("+00:00", "Z")


def refuse_future(time_us: int, now_us: int) -> None:
    """Refuse a time too far ahead of Redis' clock: it would make all later events stale.

    Raises:
        PayloadRefused: `future_time`.
    """
    ahead_us = time_us - now_us
    if ahead_us > FUTURE_TOLERANCE_US:
        raise PayloadRefused(
            Refusal.FUTURE_TIME,
            f"The event's time {format_time(time_us)} is {ahead_us // MICROSECONDS} s ahead of "
            "Redis' clock; at most 300 s are accepted.",
        )


def refuse_forgotten(time_us: int, oldest_us: int) -> None:
    """Refuse a time before which the ledger may have forgotten who left.

    Raises:
        PayloadRefused: `older_than_ledger`.
    """
    if time_us < oldest_us:
        raise PayloadRefused(
            Refusal.OLDER_THAN_LEDGER,
            f"The event's time {format_time(time_us)} is older than what the ledger remembers"
            f" (delivery.ledger_retention, since {format_time(oldest_us)}): an exit that came"
            " later may be forgotten.",
        )


@lru_cache(maxsize=4_096)
def _minute_start(day: str, minute: str) -> int:
    try:
        return int(datetime.fromisoformat(f"{day}T{minute}:00+00:00").timestamp())
    except ValueError as error:
        raise _bad(f"'{day}T{minute}' is no date and time of the calendar.") from error


def _checked_second(text: str) -> int:
    second = int(text)
    if second > _LEAP_SECOND:
        raise _bad(f"Second {second} does not exist.")
    return second


def _offset(sign: str, hours: int, minutes: int) -> int:
    if hours >= _HOURS or minutes >= _MINUTE:
        raise _bad(f"The offset {sign}{hours:02}:{minutes:02} does not exist.")
    seconds = (hours * _MINUTE + minutes) * _MINUTE
    return seconds if sign == "+" else -seconds


def _shown(value: object) -> str:
    """Describe a bad value for a message, without repeating what might be a profile's."""
    if isinstance(value, str):
        return f"'{value}'" if _HARMLESS.fullmatch(value) else f"A text of {len(value)} characters"
    if value is None:
        return "null"
    return f"A JSON {type(value).__name__}"


def _bad(message: str) -> PayloadRefused:
    return PayloadRefused(Refusal.BAD_TIME, message)

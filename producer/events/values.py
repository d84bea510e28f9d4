"""The values of a payload that have to be exact: times, profile keys, and large integers.

A time is read from RFC 3339 text into microseconds since 1970. The key of a profile is
`field:value` of the one configured identity field. Integers that a double can't hold are read
exactly and carried as text: templates calculate with doubles, in which two integers above 2^53 can
be one, so that two people would become one person. orjson reads integers beyond 64 bits as doubles,
which is the same loss earlier.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import orjson

from segrelay.worker.contract.keys import identity_text
from segrelay.worker.contract.words import Refusal
from segrelay.worker.errors import PayloadRefused

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


LARGEST_EXACT: Final = 2**53
_DIGITS_OF_64_BITS: Final = 19
_ROUGH_SHAPE: Final = bytes.maketrans(b"123456789,[ \t\r\n-", b"000000000:::::::")
_SHAPE: Final = bytes.maketrans(b"123456789,[", b"000000000::")
_IGNORED: Final = b" \t\r\n-"
_LONG_INTEGER: Final = b":" + b"0" * _DIGITS_OF_64_BITS
"""The pattern of a long integer outside of strings in JSON text."""
_FRAMES: Final = 3_000
"""The limit on recursion, in frames: `json` needs one for each of the 1,024 levels of orjson."""


def loads_exactly(text: bytes) -> Any:
    """Parse a JSON text, and read every integer exactly.

    Raises:
        JSONDecodeError: It is not JSON; orjson's.
    """
    value = orjson.loads(text)
    if not may_hold_long_integers(text):
        return value
    try:
        return json.loads(text)
    except RecursionError:
        sys.setrecursionlimit(max(_FRAMES, sys.getrecursionlimit()))
        return json.loads(text)


def may_hold_long_integers(text: bytes) -> bool:
    """Say whether JSON, of one value or several, may hold integers that orjson reads as doubles."""
    # The rough shape shows all of them and a few others, in half the time.
    if _LONG_INTEGER not in text.translate(_ROUGH_SHAPE):
        return False
    return _LONG_INTEGER in text.translate(_SHAPE, _IGNORED)


def dumps_exactly(value: dict[str, Any]) -> bytes:
    """Return an object's JSON with integers above 2^53 as text.

    Raises:
        TypeError: There is no such JSON, or it is nested deeper than 254 levels; orjson's.
        RecursionError: It is nested deeper still.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except TypeError:  # an integer from 2^53 on, or no JSON at all
        return orjson.dumps(_as_text(value))


def _as_text(value: Any) -> Any:
    """Return a value with its integers above 2^53 as text."""
    if isinstance(value, int) and abs(value) > LARGEST_EXACT:
        return str(value)
    if isinstance(value, list):
        return [_as_text(element) for element in value]
    if isinstance(value, dict):
        return {field: _as_text(element) for field, element in value.items()}
    return value

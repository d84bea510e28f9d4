"""From a payload to events: every form in which Lytics and files hand over a profile.

A payload is wrapped (`{id, data, meta}`), a CloudEvent, or unwrapped (the content of `data` alone);
a row of a file may also be a profile without events, which gets the event of its job. Each entry of
`segment_events` becomes one event, whose profile holds exactly that entry. What can't be placed
becomes a `Refused`; the others are still placed.

Some values have to be exact. A time is read from RFC 3339 text into microseconds since 1970. The
key of a profile is `field:value` of the one configured identity field. Integers that a double can't
hold are read exactly and carried as text: templates calculate with doubles, in which two integers
above 2^53 can be one, so that two people would become one person. orjson reads integers beyond 64
bits as doubles, which is the same loss earlier.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import orjson
import structlog

from segrelay.worker.contract.events import Event
from segrelay.worker.contract.keys import identity_text
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import RedisError
from segrelay.worker.contract.words import Direction, Refusal
from segrelay.worker.errors import PayloadRefused, SegrelayError

MICROSECONDS: Final = 1_000_000
FUTURE_TOLERANCE_US: Final = 5 * 60 * MICROSECONDS

_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):([0-5]\d|60)(?:\.(\d+))?([Zz]|[+-]\d\d:?[0-5]\d)",
    re.ASCII,
)
_LAST_SECOND: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
_HARMLESS: Final = re.compile(r"[-0-9TZtz:+. ]{1,40}", re.ASCII)


def parse_time(value: object) -> int:
    """Return µs since 1970 of an RFC 3339 time; digits beyond the sixth are cut off.

    Raises:
        PayloadRefused: `bad_time`.
    """
    match = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _bad(f"{_shown(value)} is not an RFC 3339 time such as 2026-11-01T10:00:00Z.")
    day, minute, second, fraction, offset = match.groups()
    try:
        seconds = _minute_of(f"{day}T{minute}{offset.upper()}") + int(second)
    except ValueError as error:
        raise _bad(f"{_shown(value)} is no date and time of the calendar.") from error
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
def _minute_of(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


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


log = structlog.get_logger()

SEGMENT_EVENTS: Final = "segment_events"
_DIRECTIONS: Final = {direction.value: direction for direction in Direction}
_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_NAME: Final = 256

_KINDS: Final = {
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
    list: "an array",
    dict: "an object",
}

ResolveAudience = Callable[[str, str], str]
"""A function that returns the slug of an audience from its id and slug, one of which may be "".

It raises PayloadRefused if that can't be told.
"""


@dataclass(frozen=True, slots=True)
class Refused:
    """A payload or event that could not be placed, with the reason.

    Args:
        audience: the audience's slug, or its id where the slug is not known; "" where there is
            neither.
        content: the JSON text of the payload, reduced to what was refused.
        line: the line of the source, or the payload's number in the call, from 1; 0 = not known
            yet.
        index: position of the payload in the array of that line, from 0.
    """

    reason: Refusal
    message: str
    audience: str = ""
    content: bytes = b""
    line: int = 0
    index: int = 0

    @classmethod
    def of(cls, refusal: PayloadRefused, content: bytes, audience: str = "") -> Refused:
        """Return the refusal of a payload or event, from the error that says why."""
        return cls(Refusal(refusal.reason), refusal.message, audience, content)


@dataclass(slots=True)  # frozen, each would take three times as long: a backfill makes millions
class Payload:
    """A payload that a reader has parsed already.

    Args:
        text: The JSON text as it came.
        value: The value parsed from `text`, which is taken over and changed.
        line: The number of its first line in its source, from 1; 0 where there are no lines.
        index: The position in the array of that line, from 0.
        error: The reason why it can't be read, with which `value` means nothing; "" = it can.
        state: True if its events were made up by comparison, whatever `ReadingRules.state` says.
    """

    text: bytes
    value: Any
    line: int = 0
    index: int = 0
    error: str = ""
    reason: Refusal = Refusal.UNREADABLE
    state: bool = False


def reread(payload: Payload) -> Payload:
    """Return a payload with its value, which is parsed again if it was dropped."""
    if payload.error or payload.value is not None:
        return payload
    return replace(payload, value=load(payload.text))


class ReadingRules(NamedTuple):
    """The settings for reading payloads that arrive together.

    Attributes:
        arrived_us: The time of their arrival; the time of a change that has no other.
        now_us: The time by Redis' clock, behind which the future begins.
        state: True if they were made up by comparison.
        oldest_us: The beginning of what the ledger remembers; an event before it is refused.
            0 = none is.
    """

    arrived_us: int
    now_us: int
    identity: str
    resolve_audience: ResolveAudience
    state: bool
    skip_hook: bool
    oldest_us: int = 0


def load(text: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        PayloadRefused: `unreadable`.
    """
    try:
        return loads_exactly(text.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        where = f"column {error.colno}" if error.lineno == 1 else f"its line {error.lineno}"
        raise PayloadRefused(Refusal.UNREADABLE, f"Not JSON: {error.msg} ({where}).") from error


def values_of(value: Any) -> list[Any]:
    """Return the payloads in a parsed value: the elements of an array, or the value itself."""
    return value if isinstance(value, list) and value else [value]


def events_of(payload: Any, rules: ReadingRules) -> Iterator[Event | Refused]:
    """Yield the events of one parsed payload."""
    try:
        profile, change_time = opened(payload)
        entries = _entries(profile)
        if len(entries) > FEW_EVENTS:
            refuse_heavy(len(entries), len(text_of(profile)))
    except PayloadRefused as refusal:
        yield Refused.of(refusal, text_of(payload))
        return
    for entry in entries:
        single = profile if len(entries) == 1 else {**profile, SEGMENT_EVENTS: [entry]}
        try:
            yield _event(single, entry, change_time, rules)
        except Exception as error:  # noqa: BLE001 - one event must not cost the others anything
            yield Refused.of(as_refusal(error), text_of(_reduced(payload, single)), _named(entry))


def text_of(value: Any) -> bytes:
    """Return the JSON text of a value, also of one that is nested too deep for an event."""
    try:
        return orjson.dumps(value)
    except TypeError:
        try:
            return json.dumps(value).encode()
        except (RecursionError, TypeError, ValueError):
            return b""


def content_of(event: Event) -> bytes:
    """Return an event as a payload's JSON text, which gives the same event when it is read."""
    if event.direction is Direction.CHANGE:
        meta = {"timestamp": format_time(event.time_us)}
        return text_of({"data": event.profile, "meta": meta})
    return text_of(event.profile)


def opened(payload: Any, *, within_cloud_event: bool = False) -> tuple[dict[str, Any], object]:
    """Return the profile that a payload carries, and the time of a change (None = it has none).

    The payload's own id is put into the profile, where that has none. A CloudEvent's `id` names the
    event and not the profile, so it is nobody's identity.
    """
    if not isinstance(payload, dict):
        raise PayloadRefused(
            Refusal.UNREADABLE, f"A payload is an object, this is {_kind_of(payload)}."
        )
    if SEGMENT_EVENTS not in payload and isinstance(payload.get("users"), list):
        raise PayloadRefused(
            Refusal.RENDERED,
            "The body is already rendered (`users`): take the template out of the webhook job at "
            "Lytics; segrelay renders with its own.",
        )
    if SEGMENT_EVENTS in payload or "data" not in payload:
        return payload, None
    profile = payload["data"]
    if not isinstance(profile, dict):
        raise PayloadRefused(
            Refusal.UNREADABLE, f"`data` should be a profile, but is {_kind_of(profile)}."
        )
    if "specversion" in payload and not within_cloud_event:
        profile, change_time = opened(profile, within_cloud_event=True)
        return profile, payload.get("time") if change_time is None else change_time
    meta = payload.get("meta")
    change_time = meta.get("timestamp") if isinstance(meta, dict) else None
    own_id = _own_id(payload.get("id"))
    if own_id is not None and PAYLOAD_ID not in profile:
        profile = {**profile, PAYLOAD_ID: own_id}
    return profile, change_time


def _own_id(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _entries(profile: dict[str, Any]) -> list[Any]:
    entries = profile.get(SEGMENT_EVENTS)
    if isinstance(entries, list) and entries:
        return entries
    if entries is None:
        message = "The profile has no `segment_events`."
    elif isinstance(entries, list):
        message = "`segment_events` is empty."
    else:
        message = f"`segment_events` should be an array, but is {_kind_of(entries)}."
    raise PayloadRefused(Refusal.NO_EVENTS, message)


def as_refusal(error: Exception) -> PayloadRefused:
    """Return what was raised about one payload or event as its refusal.

    What nobody thought of is `unreadable`. An error that is not the payload's fault is raised.
    """
    if isinstance(error, PayloadRefused):
        return error
    if isinstance(error, (SegrelayError, RedisError)):
        raise error
    where = traceback.extract_tb(error.__traceback__)[-1]
    cause = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
    log.error("payload.failed", error=cause)  # its text may hold a profile
    return PayloadRefused(
        Refusal.UNREADABLE, f"Reading it failed ({cause}): please report that."
    ).with_traceback(error.__traceback__)


def _event(profile: dict[str, Any], entry: Any, change_time: object, rules: ReadingRules) -> Event:
    direction = _direction(entry)
    slug = rules.resolve_audience(_name(entry, "id"), _name(entry, "slug"))
    if entry.get("slug") != slug:
        profile = {**profile, SEGMENT_EVENTS: [{**entry, "slug": slug}]}
    time_us = _time_us(entry, direction, change_time, rules)
    key = profile_key(profile, rules.identity)
    return Event(key, slug, direction, time_us, profile, rules.state, rules.skip_hook)


def _direction(entry: Any) -> Direction:
    if not isinstance(entry, dict):
        raise _bad_event(f"A segment event is an object, this is {_kind_of(entry)}.")
    direction = _DIRECTIONS.get(entry["event"]) if isinstance(entry.get("event"), str) else None
    if direction is None:
        raise _bad_event("A segment event's `event` is none of enter, exit, change.")
    return direction


def _name(entry: dict[str, Any], field: str) -> str:
    """Return the audience's id or slug, or "" if there is none."""
    value = entry.get(field)
    if isinstance(value, str):
        name = value.strip()
        if len(name) > _LONGEST_NAME:
            raise _bad_event(f"The audience's `{field}` is longer than {_LONGEST_NAME} characters.")
        return name
    if value is None:
        return ""
    if field == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _bad_event(f"The audience's `{field}` should be a text, but is {_kind_of(value)}.")


def _time_us(entry: Any, direction: Direction, change_time: object, rules: ReadingRules) -> int:
    if direction is Direction.CHANGE:
        time_us = rules.arrived_us if change_time is None else parse_time(change_time)
    elif direction.value in entry:
        time_us = parse_time(entry[direction.value])
    else:
        raise PayloadRefused(Refusal.BAD_TIME, f"The event has no time under `{direction}`.")
    refuse_future(time_us, rules.now_us)
    refuse_forgotten(time_us, rules.oldest_us)
    return time_us


def _bad_event(message: str) -> PayloadRefused:
    return PayloadRefused(Refusal.BAD_EVENT, message)


def _named(entry: Any) -> str:
    if not isinstance(entry, dict):
        return ""
    name = entry.get("slug") or entry.get("id") or ""
    return str(name)[:_LONGEST_NAME] if isinstance(name, str | int) else ""


def _reduced(
    payload: dict[str, Any], profile: dict[str, Any], *, within_cloud_event: bool = False
) -> dict[str, Any]:
    """Return the payload in its original form, around a profile with only the refused entry."""
    if SEGMENT_EVENTS in payload or "data" not in payload:
        return profile
    if "specversion" in payload and not within_cloud_event:
        return {**payload, "data": _reduced(payload["data"], profile, within_cloud_event=True)}
    return {**payload, "data": profile}


def _kind_of(value: Any) -> str:
    return _KINDS.get(type(value), "no JSON")


FEW_EVENTS: Final = 16
"""The number of events up to which a payload's size is not checked: it can't be too heavy."""
_MOST_BYTES: Final = 16 * 1024 * 1024


def refuse_heavy(events: int, profile_bytes: int) -> None:
    """Refuse a payload whose events would take more than 16 MiB together.

    Raises:
        PayloadRefused: `too_large`.
    """
    if events * profile_bytes > _MOST_BYTES:
        raise PayloadRefused(
            Refusal.TOO_LARGE,
            f"{plural(events, 'segment event')} with a profile of {profile_bytes:,} bytes each: "
            "split the payload.",
        )


@dataclass(frozen=True, slots=True)
class RowForm:
    """The meaning of a job's rows: which audience they list, and as of when.

    Args:
        audience: The audience's slug.
        audience_id: The audience's id; "" = not told: publishing adds it if Redis knows it.
        at: The time when the rows were true, RFC 3339; "" where each row says it itself.
        column: The field in which each row says it; "" where all have the same time.
    """

    audience: str
    audience_id: str
    direction: Literal["enter", "exit"]
    at: str
    column: str = ""

    @property
    def as_of(self) -> str:
        """Return the time in the form in which an operator gave it."""
        return f"column:{self.column}" if self.column else self.at

    def entry(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the segment event of one row: a new object, which the payload takes over."""
        known = {"id": self.audience_id} if self.audience_id else {}
        at = row.get(self.column) if self.column else self.at
        return {**known, "slug": self.audience, "event": self.direction, self.direction: at}


def payloads_of(row: Payload, form: RowForm | None) -> Iterator[Payload]:
    """Yield the payloads that are published for one row, which may be an array of several.

    A profile gets the job's event; a payload keeps its own, as all do where there is no form.
    """
    if form is None or row.error:
        yield row
        return
    is_array = isinstance(row.value, list)
    for index, value in enumerate(row.value if is_array else [row.value]):
        one = Payload(b"", value, row.line, index) if is_array else row
        if isinstance(value, dict) and not has_own_events(value):
            made = {**value, SEGMENT_EVENTS: [form.entry(value)]}
            one = Payload(one.text, made, one.line, one.index, state=True)
        yield one


def is_row(value: Any) -> bool:
    """Say whether a parsed value is a profile without events: a row of a table."""
    if not isinstance(value, dict) or not value or SEGMENT_EVENTS in value:
        return False
    return not isinstance(value.get("data"), dict) or is_row(value["data"])


def has_own_events(value: dict[str, Any]) -> bool:
    """Say whether a row is a webhook's payload, in any of its forms."""
    if SEGMENT_EVENTS in value:
        return True
    return isinstance(value.get("data"), dict) and ("meta" in value or "specversion" in value)

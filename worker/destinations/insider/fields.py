"""The fields of a user at Insider: identifiers, attributes, events; made right or left out.

Facts from Insider's documentation. Every function appends to `dropped` the name of what could not
be right; what is merely empty is left out silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from segrelay.worker.destinations import normalise
from segrelay.worker.destinations.normalise import is_empty, pruned

OPT_INS: Final = ("email_optin", "sms_optin", "whatsapp_optin", "gdpr_optin")
DEFAULT_ATTRIBUTES: Final[dict[str, Callable[[Any], Any]]] = {
    "email": normalise.email,
    "name": normalise.text,
    "surname": normalise.text,
    "city": normalise.text,
    "uuid": normalise.text,
    "gender": normalise.text,
    "age": normalise.age,
    "birthday": normalise.birthday,
    "language": normalise.language,
    "country": normalise.country,
    "lo": normalise.text,
    "app_version": normalise.text,
    "static_segment_id": normalise.contact_lists,
    "list_id": normalise.contact_lists,
    **dict.fromkeys(OPT_INS, normalise.boolean),
}
PHONE: Final = "phone_number"
OBJECT_ATTRIBUTES: Final = "object_attributes"
"""The key of lists of objects with patch actions, from a newer page of Insider's documentation.

They are passed on as they are, wherever they stand.
"""
TOO_OLD: Final = "too_old"

_BLOCKED: Final = frozenset({"", "undefined", "anonymous", "0", "1", "null"})
"""Identifiers that many people share: sending them would merge these people's profiles."""

_EVENT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_EVENT_KEYS: Final = frozenset({"event_name", "timestamp", "event_params"})
_MINUTE_US: Final = 60_000_000
_OLDEST_EVENT: Final = timedelta(days=90)
"""The greatest age of a custom event: Insider does not write older ones (about three months)."""
_OLDEST: Final = {"purchase": timedelta(days=730)}
"""The greatest age of those of Insider's own events that may be older than custom events."""


def unshared(value: Any) -> str | None:
    """Return an identifier as text, unless it is one that many people share."""
    written = normalise.text(value)
    return None if written is None or written.lower() in _BLOCKED else written


_IDENTIFIERS: Final[dict[str, Callable[[Any], Any]]] = {
    "email": normalise.email,
    "uuid": unshared,
}


def identifiers(value: Any, region: str, dropped: list[str]) -> dict[str, Any]:
    """Return the identifiers that can identify one person."""
    return _made_right(value, "identifiers", _IDENTIFIERS, region, dropped)


def attributes(value: Any, region: str, dropped: list[str]) -> dict[str, Any]:
    """Return the attributes that Insider can take."""
    return _made_right(value, "attributes", DEFAULT_ATTRIBUTES, region, dropped)


def _made_right(
    value: Any,
    part: str,
    table: Mapping[str, Callable[[Any], Any]],
    region: str,
    dropped: list[str],
) -> dict[str, Any]:
    """Return the fields of a part of a user that Insider takes, made right."""
    if type(value) is not dict:
        _drop(part, value, dropped)
        return {}
    right: dict[str, Any] = {}
    for name, given in value.items():
        if given is None or given == "":
            continue
        make = table.get(name)
        if make is not None:
            found = make(given)
        elif name == PHONE:
            found = normalise.phone(given, region)
        elif name == "custom" and type(given) is dict:
            found = pruned(given) if table is DEFAULT_ATTRIBUTES else _unshared(given, dropped)
            if not found:
                continue
        else:
            is_list = name == OBJECT_ATTRIBUTES and table is DEFAULT_ATTRIBUTES
            found = given if is_list and not is_empty(given) else None
        if found is not None:
            right[name] = found
        else:
            _drop(f"{part}.{name}", given, dropped)
    return right


def _unshared(given: Mapping[str, Any], dropped: list[str]) -> dict[str, str]:
    right = {name: found for name, value in given.items() if (found := unshared(value)) is not None}
    for name, value in given.items():
        if name not in right:
            _drop(f"identifiers.custom.{name}", value, dropped)
    return right


def events(value: Any, *, time_us: int, now_us: int, dropped: list[str]) -> list[dict[str, Any]]:
    """Return the events that Insider would write; older ones are counted as `too_old`.

    Args:
        value: As the template yielded it.
        time_us: Of the delivery's event, for those that have no time of their own.
        now_us: Redis' clock.
        dropped: Gets the names of what is left out.
    """
    if type(value) is not list:
        _drop("events", value, dropped)
        return []
    right = []
    for given in value:
        if type(given) is not dict:
            _drop("events", given, dropped)
        elif (found := _event(given, time_us, now_us, dropped)) is not None:
            right.append(found)
    return right


def _event(
    given: dict[str, Any], time_us: int, now_us: int, dropped: list[str]
) -> dict[str, Any] | None:
    written = normalise.text(given.get("event_name"))
    name = written and _event_name(written)
    if not name:
        dropped.append("events.event_name")
        return None
    moment = _moment(given.get("timestamp"), time_us)
    if moment is None:
        dropped.append("events.timestamp")
        return None
    if moment < _oldest(now_us // _MINUTE_US, name):
        dropped.append(TOO_OLD)
        return None
    if not given.keys() <= _EVENT_KEYS:
        for key in sorted(given.keys() - _EVENT_KEYS):
            _drop(f"events.{key}", given[key], dropped)
    right: dict[str, Any] = {"event_name": name, "timestamp": normalise.timestamp(moment)}
    parameters = pruned(given.get("event_params"))
    if type(parameters) is dict:
        _drop_wrong_custom(parameters, dropped)
        if parameters:
            right["event_params"] = parameters
    elif parameters is not None:
        dropped.append("events.event_params")
    return right


@lru_cache(maxsize=1_024)
def _event_name(written: str) -> str | None:
    name = written.lower()
    return name if _EVENT_NAME.fullmatch(name) else None


def _drop_wrong_custom(parameters: dict[str, Any], dropped: list[str]) -> None:
    if type(parameters.get("custom", {})) is not dict:
        del parameters["custom"]
        dropped.append("events.event_params.custom")


def _moment(written: Any, time_us: int) -> datetime | None:
    """Return when a custom event happened: as the template says, else as the delivery's."""
    if is_empty(written):
        return _instant_of(time_us)
    return normalise.instant(written)


def _instant_of(time_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


@lru_cache(maxsize=64)
def _oldest(minute: int, event_name: str) -> datetime:
    return _instant_of(minute * _MINUTE_US) - _OLDEST.get(event_name, _OLDEST_EVENT)


def _drop(name: str, value: Any, dropped: list[str]) -> None:
    if not is_empty(value):
        dropped.append(name)

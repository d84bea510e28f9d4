"""Insider's profiles: found by any identifier, merged by shared ones, written and erased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

_EVENTS_KEPT_A_PROFILE: Final = 50


class InsiderProfile:
    """One person at Insider.

    Its attributes are kept as JSON: a hundred thousand profiles of live objects are a gigabyte, and
    make the garbage collector the slowest part of the sandbox.

    Attributes:
        serial: The profile's number, which counts up; the older profile survives a merge.
        keys: The identifiers by which it is found, as `kind:value`.
    """

    __slots__ = ("_attributes", "event_count", "events", "keys", "serial", "updated_at")

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.keys: tuple[str, ...] = ()
        self.events: tuple[bytes, ...] = ()
        self.event_count = 0
        self.updated_at = 0.0
        self._attributes = b""

    @property
    def insider_id(self) -> str:
        """Return the id that Insider gave the profile."""
        return f"sandbox-{self.serial:010d}"

    def attributes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a copy of the default and of the custom attributes."""
        if not self._attributes:
            return {}, {}
        default, custom = orjson.loads(self._attributes)
        return default, custom

    def replace(self, default: dict[str, Any], custom: dict[str, Any]) -> None:
        """Replace all attributes of the profile."""
        self._attributes = _packed((default, custom))

    def shown(self) -> dict[str, Any]:
        """Return the profile as a report shows it."""
        default, custom = self.attributes()
        return {
            "insider_id": self.insider_id,
            "identifiers": self.keys,
            "attributes": {**default, "custom": custom},
            "event_count": self.event_count,
            "events": [orjson.loads(event) for event in self.events],
            "updated_at": self.updated_at,
        }


class Profiles:
    """The profiles of an account, and the log of their events."""

    def __init__(self) -> None:
        self.erased = 0
        self.merged = 0
        self.events_written: Counter[str] = Counter()
        self.events_doubled = 0
        self._index: dict[str, InsiderProfile] = {}
        self._serial = 0
        self._alive = 0

    def __len__(self) -> int:
        return self._alive

    def __iter__(self) -> Iterator[InsiderProfile]:
        """Yield each profile once, oldest key first."""
        return iter({profile.serial: profile for profile in self._index.values()}.values())

    def find(self, keys: Sequence[str]) -> InsiderProfile | None:
        """Return the profile that any of the identifiers leads to."""
        for key in keys:
            found = self._index.get(key)
            if found is not None:
                return found
        return None

    def claim(self, keys: Sequence[str]) -> InsiderProfile:
        """Return the one profile of all these identifiers: found, merged or new."""
        owner: InsiderProfile | None = None
        index = self._index
        for key in keys:
            found = index.get(key)
            if found is not None and found is not owner:
                owner = found if owner is None else self._merge(owner, found)
        if owner is None:
            owner = self._create()
        new = tuple(key for key in keys if key not in index)
        if new:
            owner.keys += new
            index.update(dict.fromkeys(new, owner))
        return owner

    def anonymize(self, keys: Sequence[str]) -> bool:
        """Remove identifiers and default attributes; false if there is no profile with them."""
        profile = self.find(keys)
        if profile is None:
            return False
        for key in profile.keys:
            del self._index[key]
        profile.keys = (f"anonymous:{profile.serial}",)
        self._index[profile.keys[0]] = profile
        profile.replace({}, profile.attributes()[1])
        return True

    def erase(self, keys: Sequence[str]) -> bool:
        """Delete a whole profile for good; false if there is none."""
        profile = self.find(keys)
        if profile is None:
            return False
        for key in profile.keys:
            del self._index[key]
        self._alive -= 1
        self.erased += 1
        return True

    def log_event(self, profile: InsiderProfile, event: Mapping[str, Any]) -> None:
        """Append to the event log; the same event is logged again each time."""
        written = _packed(event)
        if written in profile.events:
            self.events_doubled += 1
        profile.events = (*profile.events[1 - _EVENTS_KEPT_A_PROFILE :], written)
        profile.event_count += 1
        self.events_written[event["event_name"]] += 1

    def lists(self, attribute: str) -> dict[str, list[Any]]:
        """Return one custom array attribute as sorted lists by email, empty lists included."""
        found = {}
        for key, profile in self._index.items():
            if key.startswith("email:"):
                value = profile.attributes()[1].get(attribute)
                found[key[6:]] = sorted(value, key=str) if type(value) is list else []
        return found

    def _create(self) -> InsiderProfile:
        self._serial += 1
        self._alive += 1
        profile = InsiderProfile(self._serial)
        profile.keys = ("insider_id:" + profile.insider_id,)
        self._index[profile.keys[0]] = profile
        return profile

    def _merge(self, one: InsiderProfile, other: InsiderProfile) -> InsiderProfile:
        older, newer = sorted((one, other), key=lambda profile: profile.serial)
        self.merged += 1
        self._alive -= 1
        for key in newer.keys:
            self._index[key] = older
        older.keys += newer.keys
        default, custom = older.attributes()
        for into, values in zip((default, custom), newer.attributes(), strict=True):
            _fill(into, values)
        older.replace(default, custom)
        older.events = (older.events + newer.events)[-_EVENTS_KEPT_A_PROFILE:]
        older.event_count += newer.event_count
        return older


def _packed(value: Any) -> bytes:
    """Return JSON as compact bytes; those that orjson returns occupy four kilobytes or more."""
    return bytes(memoryview(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)))


def _fill(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        there = into.setdefault(name, value)
        if there is not value and type(there) is list and type(value) is list:
            there += [item for item in value if item not in there]


def write(into: dict[str, Any], values: Mapping[str, Any], *, append: bool) -> None:
    """Write attributes: scalars replace, arrays are appended to as sets, or overwritten."""
    for name, value in values.items():
        there = into.get(name)
        if type(value) is not list:
            into[name] = value
        elif append and type(there) is list and there:
            into[name] = there + [item for item in _once(value) if item not in there]
        else:
            into[name] = _once(value)


def _once(values: list[Any]) -> list[Any]:
    if len(values) == 1:
        return values
    try:
        return list(dict.fromkeys(values))
    except TypeError:  # objects, where everything is accepted
        return [value for at, value in enumerate(values) if value not in values[:at]]


def remove(values: dict[str, Any], parts: Mapping[str, Any]) -> list[str]:
    """Remove whole attributes and single values of arrays.

    Returns:
        Names of `partial` whose attribute is there but is no array.
    """
    for name in parts.get("whole", ()):
        values.pop(name, None)
    mistyped = []
    for name, unwanted in parts.get("partial", {}).items():
        there = values.get(name)
        if type(there) is list:
            values[name] = [item for item in there if item not in unwanted]
        elif there is not None:
            mistyped.append(name)
    return mistyped

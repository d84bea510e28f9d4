"""The definitions in Insider's panel; it silently drops what is not defined."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from segrelay.sandbox.settings import AttributeKind, SandboxSettings

_SCALARS: Final = frozenset({str, int, float})
_DATE: Final = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?[Zz]$", re.ASCII)
_LANGUAGE: Final = re.compile(r"^[a-z]{2}_[A-Z]{2}$")
_COUNTRY: Final = re.compile(r"^[A-Z]{2}$")
_SECONDS_A_DAY: Final = 86_400
_EXAMPLES_KEPT: Final = 1_000

Validator = Callable[[Any], object]
_TYPES: Final[dict[AttributeKind, frozenset[type]]] = {
    "string": frozenset({str}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "date": frozenset({str}),
    "array": frozenset({list}),
    "any": frozenset({str, int, float, bool, list, dict}),
}
_SHAPES_KEPT: Final = 1_000
_CHECKS: Final[dict[AttributeKind, Validator]] = {
    "date": _DATE.match,
    "array": lambda values: _SCALARS.issuperset(map(type, values)),
}
DEFAULT_KINDS: Final[dict[str, AttributeKind]] = {
    **dict.fromkeys(("email", "phone_number", "uuid", "name", "surname", "city"), "string"),
    **dict.fromkeys(("gender", "language", "country", "lo", "app_version"), "string"),
    **dict.fromkeys(("static_segment_id", "list_id"), "array"),
    "age": "number",
    "birthday": "date",
    **dict.fromkeys(("email_optin", "sms_optin", "whatsapp_optin", "gdpr_optin"), "boolean"),
}


class Kinds:
    """The defined names, with the type and form that their values must have.

    Bodies come in few shapes (the same names with values of the same types), so what follows from a
    shape is worked out once.
    """

    def __init__(self, kinds: Mapping[str, AttributeKind]) -> None:
        self.types = {name: _TYPES[kind] for name, kind in kinds.items()}
        self.checks = {name: _CHECKS[kind] for name, kind in kinds.items() if kind in _CHECKS}
        self._shapes: dict[tuple[Any, ...], tuple[set[str], list[tuple[str, Validator]]]] = {}

    def define(self, name: str, kind: AttributeKind) -> None:
        """Define a name unless it is defined already."""
        if name not in self.types:
            self.types[name] = _TYPES[kind]
            self._shapes.clear()

    def misfits(self, values: Mapping[str, Any]) -> set[str]:
        """Return the names that are undefined or whose value does not fit."""
        shape = (*values, *map(type, values.values()))
        known = self._shapes.get(shape)
        wrong, checks = known or self._learn(shape, values)
        for name, check in checks:
            if not check(values[name]):
                wrong = wrong | {name}
        return wrong

    def _learn(
        self, shape: tuple[Any, ...], values: Mapping[str, Any]
    ) -> tuple[set[str], list[tuple[str, Validator]]]:
        wrong = {
            name for name, value in values.items() if type(value) not in self.types.get(name, ())
        }
        checks = [(name, self.checks[name]) for name in values.keys() - wrong & self.checks.keys()]
        if len(self._shapes) < _SHAPES_KEPT:
            self._shapes[shape] = wrong, checks
        return wrong, checks


_DEFAULT: Final = Kinds(DEFAULT_KINDS)
_DEFAULT.checks |= {
    "language": _LANGUAGE.match,
    "country": _COUNTRY.match,
    **dict.fromkeys(
        ("static_segment_id", "list_id"), lambda values: {int}.issuperset(map(type, values))
    ),
}
_NO_KINDS: Final = Kinds({})


class Drops:
    """The values that Insider would silently drop: counts by reason and name, and examples."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: deque[tuple[str, str, str]] = deque(maxlen=_EXAMPLES_KEPT)

    def note(self, reason: str, name: str, who: str) -> None:
        """Count an attribute, event or parameter of a user (`kind:value`) that is not written."""
        self.counts[reason, name] += 1
        self.examples.append((reason, name, who))


class Panel:
    """Selects the attributes and events of a user that are written."""

    def __init__(self, settings: SandboxSettings, drops: Drops) -> None:
        self._settings = settings
        self._drops = drops
        self._custom = Kinds(settings.panel_attributes)
        self._events = {event: Kinds(kinds) for event, kinds in settings.panel_events.items()}

    def default_attributes(self, attributes: Mapping[str, Any], who: str) -> dict[str, Any]:
        """Return the default attributes that are written."""
        return self._kept(attributes, _DEFAULT, "attribute", who)

    def custom_attributes(self, custom: Mapping[str, Any], who: str) -> dict[str, Any]:
        """Return the custom attributes that are written."""
        if self._settings.accept_anything:
            self._define(custom)
        return self._kept(custom, self._custom, "attribute", who)

    def event(self, event: Mapping[str, Any], now: float, who: str) -> dict[str, Any] | None:
        """Return the event as it is written; None if it is dropped."""
        name = event["event_name"]
        kinds = self._events.get(name)
        if kinds is None and not self._settings.accept_anything:
            self._drops.note("undefined_event", name, who)
            return None
        written_at = datetime.fromisoformat(event["timestamp"].upper()).timestamp()
        if now - written_at > self._oldest_days(name) * _SECONDS_A_DAY:
            self._drops.note("old_event", name, who)
            return None
        parameters = event.get("event_params") or {}
        if kinds is None:
            return {**event, "event_params": parameters}
        custom = self._kept(parameters.get("custom") or {}, kinds, "parameter", who)
        return {
            "event_name": name,
            "timestamp": event["timestamp"],
            "event_params": {
                **self._kept(parameters, _NO_KINDS, "parameter", who),
                "custom": custom,
            },
        }

    def _oldest_days(self, event_name: str) -> float:
        settings = self._settings
        is_purchase = event_name == "purchase"
        return settings.purchase_age_days if is_purchase else settings.event_age_days

    def columns(self, table: str) -> list[dict[str, Any]]:
        """Return the definitions as the metadata path lists them."""
        if table == "events":
            return [
                {"key": event, "display_name": event, "params": _described(kinds)}
                for event, kinds in self._settings.panel_events.items()
            ]
        custom = {f"c_{name}": kind for name, kind in self._settings.panel_attributes.items()}
        return _described({**DEFAULT_KINDS, **custom})

    def _kept(self, values: Mapping[str, Any], kinds: Kinds, what: str, who: str) -> dict[str, Any]:
        wrong = kinds.misfits(values)
        kept = {**values}
        for name in wrong:
            del kept[name]
            if name != "custom":
                reason = "mistyped" if name in kinds.types else "undefined"
                self._drops.note(f"{reason}_{what}", name, who)
        return kept

    def _define(self, custom: Mapping[str, Any]) -> None:
        for name in custom:
            if len(self._custom.types) >= self._settings.max_custom_attributes:
                return
            self._custom.define(name, "any")


def _described(kinds: Mapping[str, AttributeKind]) -> list[dict[str, Any]]:
    return [{"key": name, "display_name": name, "type": kind} for name, kind in kinds.items()]

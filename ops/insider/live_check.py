"""Checks against Insider's panel: the credentials, and the attributes that templates send.

Insider drops silently what it does not define. An undefined list of audiences is a problem; any
other attribute, event or type a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal, Protocol

from ops.insider.read_back import sample_users
from ops.insider.reader import CUSTOM, Column, InsiderReader
from worker.contract.settings import AUDIENCE_ATTRIBUTE, Settings, Trigger
from worker.errors import SegrelayError

_INSIDER: Final = "insider"
_NEAR: Final = 0.75
_KINDS: Final[Mapping[str, frozenset[type]]] = {
    "string": frozenset({str}),
    "text": frozenset({str}),
    "number": frozenset({int, float}),
    "integer": frozenset({int}),
    "float": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "bool": frozenset({bool}),
    "date": frozenset({str}),
    "datetime": frozenset({str}),
    "array": frozenset({list}),
    "list": frozenset({list}),
    "strings": frozenset({list}),
    "numbers": frozenset({list}),
}
"""The Python types that fit each type of the panel; a type that is missing here is not checked."""


class ColumnReader(Protocol):
    """A reader of the columns of a panel, or a fake of one."""

    def columns(self, table: str) -> dict[str, Column]:
        """Return the columns of the table `contacts` or `events`, by key."""
        ...


@dataclass(frozen=True, slots=True)
class LiveFinding:
    """A problem of a trigger or an authorization that the panel shows.

    Args:
        trigger: "" = it is about the destination.
        name: The field of a body that it is about, or `event_name`; "" = none.
    """

    place: str
    severity: Literal["error", "warning"]
    message: str
    trigger: str = ""
    name: str = ""


def check_live(settings: Settings) -> list[LiveFinding]:
    """Ask the panels of all destinations of Insider's API."""
    findings: list[LiveFinding] = []
    for destination in settings.destinations.values():
        if destination.api != _INSIDER:
            continue
        try:
            with InsiderReader(settings, destination) as reader:
                findings += check_panel(reader, settings, settings.triggers_of(destination.name))
        except SegrelayError as error:
            place = f"destinations.{destination.name}"
            findings.append(LiveFinding(place, "error", error.message))
    return findings


def check_panel(
    reader: ColumnReader, settings: Settings, triggers: Sequence[Trigger]
) -> Iterator[LiveFinding]:
    """Compare what the templates of triggers send for their samples with what a panel defines."""
    contacts, events = reader.columns("contacts"), reader.columns("events")
    for trigger in triggers:
        users = sample_users(settings, trigger)
        if users is None:
            message = "its template does not render its sample, so what it sends is not known"
            yield LiveFinding(f"triggers.{trigger.name}", "warning", message, trigger.name)
            continue
        seen: set[str] = set()
        for user in users:
            for severity, message, name in _of_user(user, trigger, contacts, events):
                if message not in seen:
                    seen.add(message)
                    place = f"triggers.{trigger.name}"
                    yield LiveFinding(place, severity, message, trigger.name, name)


_Complaint = tuple[Literal["error", "warning"], str, str]
"""A problem of a user object: its severity, its message, and the field that is concerned."""


def _of_user(
    user: Mapping[str, Any],
    trigger: Trigger,
    contacts: Mapping[str, Column],
    events: Mapping[str, Column],
) -> Iterator[_Complaint]:
    attributes = _object(user.get("attributes"))
    defaults = {name: value for name, value in attributes.items() if name != "custom"}
    custom = {CUSTOM + name: value for name, value in _object(attributes.get("custom")).items()}
    removed = _object(user.get("custom"))
    partial = {CUSTOM + name: value for name, value in _object(removed.get("partial")).items()}
    audiences = CUSTOM + str(trigger.settings[AUDIENCE_ATTRIBUTE])
    for name, value in {**defaults, **custom, **partial}.items():
        problem = _misfit("attribute", name, value, contacts)
        if problem:
            severity: Literal["error", "warning"] = "error" if name == audiences else "warning"
            yield severity, problem, name.removeprefix(CUSTOM)
    whole = removed.get("whole")
    for name in whole if isinstance(whole, list) else ():
        if CUSTOM + str(name) not in contacts:
            yield "warning", _undefined("attribute", CUSTOM + str(name), contacts), str(name)
    for event in user.get("events") or ():
        yield from _of_event(_object(event), events)


def _of_event(event: Mapping[str, Any], events: Mapping[str, Column]) -> Iterator[_Complaint]:
    name = str(event.get("event_name"))
    if name not in events:
        yield "warning", _undefined("event", name, events), "event_name"
        return
    parameters = {key: Column(key, kind) for key, kind in events[name].parameters.items()}
    custom_ones = {CUSTOM + key.removeprefix(CUSTOM): one for key, one in parameters.items()}
    custom = _object(_object(event.get("event_params")).get("custom"))
    for key, value in custom.items():
        known = parameters.get(key) or parameters.get(CUSTOM + key)
        columns = {CUSTOM + key: known} if known else custom_ones
        problem = _misfit(f"parameter of {name}", CUSTOM + key, value, columns)
        if problem:
            yield "warning", problem, key


def _misfit(what: str, name: str, value: Any, columns: Mapping[str, Column]) -> str:
    if value is None or value in ("", [], {}):
        return ""
    shown = name.removeprefix(CUSTOM)
    column = columns.get(name)
    if column is None:
        return _undefined(what, name, columns)
    kinds = _KINDS.get(column.kind)
    if kinds and type(value) not in kinds:
        return (
            f"{what} {shown} is a {column.kind} in Insider's panel, the template sends"
            f" {_words(value)}: it is dropped there"
        )
    return ""


def _undefined(what: str, name: str, columns: Collection[str]) -> str:
    near = next(iter(get_close_matches(name, columns, 1, _NEAR)), "")
    hint = f"; did you mean {near.removeprefix(CUSTOM)}?" if near else ""
    shown = name.removeprefix(CUSTOM)
    return f"{what} {shown} is not defined in Insider's panel: it is dropped there{hint}"


def _words(value: Any) -> str:
    words = {str: "a text", bool: "a boolean", list: "an array", dict: "an object"}
    return words.get(type(value), "a number")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

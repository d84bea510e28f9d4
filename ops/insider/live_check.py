"""Checks against Insider itself: credentials, the attributes of its panel, and people read back.

Insider drops silently what its panel does not define. An undefined list of audiences is a problem;
any other attribute, event or type a warning. A person is read back to compare what Insider holds
with what was sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final, Literal, Protocol

from segrelay.ops.insider.reader import Column, InsiderReader, ProfileReader
from segrelay.worker.checks.audiences import list_of as list_in
from segrelay.worker.checks.audiences import users_of
from segrelay.worker.checks.triggers import preview_sample
from segrelay.worker.contract.settings import AUDIENCE_ATTRIBUTE, Settings, Trigger
from segrelay.worker.destinations.api import Shaped
from segrelay.worker.destinations.insider.api import CUSTOM
from segrelay.worker.errors import SegrelayError

AS_SENT: Final = "as sent"
_DIFFERS: Final = "differs"
_NOT_THERE: Final = "not there"


@dataclass(frozen=True, slots=True)
class ReadBack:
    """A person as Insider holds them.

    Args:
        attributes: By the names under which they are read; None = Insider does not know the
            person, or it could not be read.
        problem: The reason why it could not be read; "" = it was.
    """

    attributes: Mapping[str, Any] | None
    problem: str = ""

    def lists(self, audience: str, attribute: str) -> bool:
        """Say whether the list of audiences in a custom attribute names this audience."""
        held = (self.attributes or {}).get(CUSTOM + attribute)
        return audience in held if isinstance(held, list) else held == audience

    def verdicts(self, shaped: Shaped) -> dict[str, str]:
        """Return a verdict for each attribute that was sent: as sent, differs, or not there."""
        held = self.attributes or {}
        return {
            name: _verdict(value, held.get(name)) for name, value in sorted(_sent(shaped).items())
        }


def read_lists(
    reader: ProfileReader, who: Mapping[str, Any], attributes: Iterable[str]
) -> ReadBack:
    """Read the custom attributes of a person that keep lists of audiences."""
    return ReadBack(reader.profile(who, sorted({CUSTOM + name for name in attributes})))


def read_sent(shaped: Shaped, trigger: Trigger, settings: Settings) -> ReadBack:
    """Read the attributes that a delivery of a trigger writes."""
    destination = settings.destinations[trigger.destination]
    if destination.api != "insider":
        return ReadBack(None, "Only Insider can be read back.")
    user = shaped.users[0] if shaped.users else {}
    who: dict[str, Any] = {key: user[key] for key in ("identifiers", "insider_id") if key in user}
    names = {CUSTOM + str(trigger.settings[AUDIENCE_ATTRIBUTE]), *_sent(shaped)}
    try:
        with InsiderReader(settings, destination) as reader:
            return ReadBack(reader.profile(who, sorted(names)))
    except SegrelayError as error:
        return ReadBack(None, error.message)


def _sent(shaped: Shaped) -> dict[str, Any]:
    """Return the attributes of a body by the names under which Insider returns them."""
    return dict(pair for user in shaped.users for pair in _named(user.get("attributes", {})))


def _named(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((name, value) for name, value in attributes.items() if name != "custom")
    yield from ((CUSTOM + name, value) for name, value in attributes.get("custom", {}).items())


def _verdict(sent: Any, found: Any) -> str:
    if found is None:
        return _NOT_THERE
    if isinstance(sent, list):
        held = found if isinstance(found, list) else [found]
        return AS_SENT if all(each in held for each in sent) else _DIFFERS
    return AS_SENT if found == sent or str(found) == str(sent) else _DIFFERS


def list_of(settings: Settings, trigger: Trigger) -> str:
    """Return the attribute in which a trigger keeps a list of audiences; "" = it keeps none.

    Where the sample does not render, its direction and path decide.
    """
    previewed = preview_sample(settings, trigger, datetime.now(UTC))
    return list_in(trigger, previewed and previewed.body)


def sample_attributes(settings: Settings, trigger: Trigger) -> list[str]:
    """Return the names under which Insider returns what a trigger sends for its sample."""
    users = sample_users(settings, trigger) or ()
    return [name for user in users for name, _ in _named(user.get("attributes", {}))]


def sample_users(settings: Settings, trigger: Trigger) -> list[dict[str, Any]] | None:
    """Return the users that a trigger would send for its sample; None if it can't be rendered.

    Where shaping leaves nothing to send it is the users as rendered.
    """
    previewed = preview_sample(settings, trigger, datetime.now(UTC))
    if previewed is None or previewed.body is None:
        return None
    return list(previewed.shaped.users) if previewed.shaped else users_of(previewed.body)


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

    location: str
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
            location = f"destinations.{destination.name}"
            findings.append(LiveFinding(location, "error", error.message))
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
                    location = f"triggers.{trigger.name}"
                    yield LiveFinding(location, severity, message, trigger.name, name)


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

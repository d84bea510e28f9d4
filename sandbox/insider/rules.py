"""Insider's validation of users, and the keys of its errors.

A key is `users.<index>.<location>.<rule>`; the rule holds dots and regular expressions, as those of
Insider's own answers do.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

UPSERT: Final = "/api/user/v1/upsert"
ATTRIBUTE_DELETE: Final = "/api/user/v1/attribute/delete"
ERASE: Final = "/api/user/v1/delete"
PROFILE: Final = "/api/user/v1/profile"
ANONYMIZE: Final = "/api/user/v1/anonymize"
COLUMNS: Final = "/api/user/v3/metadata/columns"
OBJECT_ATTRIBUTES: Final = "object_attributes"
WRITES: Final = frozenset({UPSERT, ATTRIBUTE_DELETE})
CHANGES: Final = frozenset({ANONYMIZE, ERASE})

_EMAIL: Final = re.compile(r"^.+@.+\..+$")
_PHONE: Final = re.compile(r"^\+[1-9]\d{6,14}$")
_EVENT_NAME: Final = re.compile(r"^[a-z0-9][a-zA-Z0-9._-]*$")
_TIMESTAMP: Final = re.compile(
    r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$", re.ASCII
)
_IDENTIFIERS: Final = frozenset({"email", "phone_number", "uuid", "custom"})
_DELETE_PARTS: Final = ("whole", "partial", "custom")


class Complaint(NamedTuple):
    """An error of Insider's validation about one user.

    Attributes:
        location: The path within the user, e.g. `events.0.event_name`.
        rule: The rule as Insider writes it.
    """

    location: str
    rule: str
    message: str

    def key(self, index: int) -> str:
        """Return the key in `errors` for the user at this position."""
        return ".".join(part for part in (f"users.{index}", self.location, self.rule) if part)


def identity_keys(user: Any) -> tuple[str, ...]:
    """Return `kind:value` for each identifier that is a text; emails in lower case.

    Takes anything, also what validation refuses later.
    """
    keys = []
    if type(user) is not dict:
        return ()
    identifiers = user.get("identifiers")
    if type(identifiers) is dict:
        for kind, value in identifiers.items():
            if kind == "email" and type(value) is str:
                keys.append("email:" + value.lower())
            elif type(value) is str:
                keys.append(f"{kind}:{value}")
            elif kind == "custom" and type(value) is dict:
                keys += [f"custom.{name}:{text}" for name, text in value.items()]
    if type(user.get("insider_id")) is str:
        keys.append("insider_id:" + user["insider_id"])
    return tuple(keys)


def check_upsert(user: Any) -> list[Complaint]:
    """Return the errors of one user of an upsert."""
    if type(user) is not dict:
        return [Complaint("", "type(object)", "user must be an object")]
    problems = check_identity(user)
    attributes, events = user.get("attributes"), user.get("events")
    if attributes is None and events is None and OBJECT_ATTRIBUTES not in user:
        problems.append(Complaint("", "required(attributes,events)", "attributes or events needed"))
    if attributes is not None:
        problems += _check_attributes(attributes)
    if events is not None:
        problems += _check_events(events)
    for switch in ("not_append", "append"):
        if switch in user and type(user[switch]) is not bool:
            problems.append(Complaint(switch, "type(bool)", f"{switch} must be a boolean"))
    return problems


def check_delete(user: Any) -> list[Complaint]:
    """Return the errors of one user of an attribute delete."""
    if type(user) is not dict:
        return [Complaint("", "type(object)", "user must be an object")]
    problems = check_identity(user)
    problems += [
        Complaint(name, "forbidden", f"{name} is not allowed here")
        for name in ("attributes", "events")
        if name in user
    ]
    if not any(user.get(part) for part in _DELETE_PARTS):
        problems.append(Complaint("", "required(whole,partial,custom)", "nothing to delete"))
    problems += _check_parts(user, "")
    custom = user.get("custom", {})
    if type(custom) is not dict:
        return [*problems, Complaint("custom", "type(object)", "custom must be an object")]
    return problems + _check_parts(custom, "custom.")


def check_removals(user: dict[str, Any]) -> list[Complaint]:
    """Return errors for attributes that can't be deleted, as they are identifiers of the user."""
    identifiers = user.get("identifiers", {})
    custom = user.get("custom", {})
    return [
        Complaint(f"{prefix}{part}", "identifier", f"{name} is an identifier")
        for prefix, parts, kinds in (
            ("", user, identifiers),
            ("custom.", custom, identifiers.get("custom", {})),
        )
        for part in ("whole", "partial")
        for name in parts.get(part, ())
        if name in kinds and name != "custom"
    ]


def check_identity(user: dict[str, Any]) -> list[Complaint]:
    """Return the errors in the identifiers of a user."""
    insider_id, identifiers = user.get("insider_id"), user.get("identifiers")
    problems = []
    if insider_id is not None and (type(insider_id) is not str or not insider_id):
        problems.append(Complaint("insider_id", "type(string)", "insider_id must be a text"))
    if identifiers is None:
        if insider_id is None:
            problems.append(Complaint("identifiers", "required", "identifiers needed"))
        return problems
    if type(identifiers) is not dict:
        return [*problems, Complaint("identifiers", "type(object)", "must be an object")]
    if not identifiers:
        return [*problems, Complaint("identifiers", "min(1)", "at least one identifier needed")]
    for kind, value in identifiers.items():
        problems += _check_identifier(kind, value)
    return problems


def _check_identifier(kind: str, value: Any) -> list[Complaint]:
    if kind not in _IDENTIFIERS:
        return [Complaint(f"identifiers.{kind}", "unknown", f"no identifier: {kind}")]
    if kind != "custom":
        return _check_contact("identifiers", kind, value)
    if type(value) is not dict or not value:
        return [Complaint("identifiers.custom", "type(object)", "custom must be an object")]
    return [
        Complaint(f"identifiers.custom.{name}", "type(string)", f"{name} must be a text")
        for name, text in value.items()
        if type(text) is not str or not text
    ]


def _check_contact(where: str, kind: str, value: Any) -> list[Complaint]:
    text = value if type(value) is str else ""
    if kind == "email" and not _EMAIL.match(text):
        return [Complaint(f"{where}.email", f"regexp({_EMAIL.pattern})", f"invalid email: {value}")]
    if kind == "phone_number" and not _PHONE.match(text):
        rule = f"value[*].regexp({_PHONE.pattern})"
        return [Complaint(where + ".phone_number", rule, f"invalid phone number: {value}")]
    if kind == "uuid" and not text:
        return [Complaint(f"{where}.uuid", "type(string)", "uuid must be a text")]
    return []


def _check_attributes(attributes: Any) -> list[Complaint]:
    if type(attributes) is not dict:
        return [Complaint("attributes", "type(object)", "attributes must be an object")]
    custom = attributes.get("custom")
    if not attributes or (len(attributes) == 1 and custom == {}):
        return [Complaint("attributes", "min(1)", "at least one attribute needed")]
    problems = []
    if custom is not None and type(custom) is not dict:
        problems.append(Complaint("attributes.custom", "type(object)", "custom must be an object"))
    for kind in ("email", "phone_number", "uuid"):
        if kind in attributes:
            problems += _check_contact("attributes", kind, attributes[kind])
    return problems


def _check_events(events: Any) -> list[Complaint]:
    if type(events) is not list:
        return [Complaint("events", "type(array)", "events must be an array")]
    problems = []
    for position, event in enumerate(events):
        problems += _check_event(f"events.{position}", event)
    return problems


def _check_event(location: str, event: Any) -> list[Complaint]:
    if type(event) is not dict:
        return [Complaint(location, "type(object)", "event must be an object")]
    problems = []
    name, timestamp = event.get("event_name"), event.get("timestamp")
    if type(name) is not str or not _EVENT_NAME.match(name):
        rule = f"regexp({_EVENT_NAME.pattern})"
        problems.append(Complaint(f"{location}.event_name", rule, f"invalid event name: {name}"))
    if type(timestamp) is not str or not _TIMESTAMP.match(timestamp):
        problems.append(Complaint(f"{location}.timestamp", "date(RFC3339)", "invalid timestamp"))
    parameters = event.get("event_params", {})
    if type(parameters) is not dict or type(parameters.get("custom", {})) is not dict:
        problems.append(Complaint(f"{location}.event_params", "type(object)", "must be an object"))
    return problems


def _check_parts(parts: dict[str, Any], prefix: str) -> list[Complaint]:
    problems = []
    whole, partial = parts.get("whole", []), parts.get("partial", {})
    if type(whole) is not list or any(type(name) is not str for name in whole):
        problems.append(Complaint(f"{prefix}whole", "type(array)", "must be a list of names"))
    if type(partial) is not dict or any(type(values) is not list for values in partial.values()):
        problems.append(Complaint(f"{prefix}partial", "type(object)", "must map names to lists"))
    return problems

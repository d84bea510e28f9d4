"""The changes that shaping made to a rendered body, with the reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from worker.checks.rehearsal import Rehearsed
from worker.destinations.normalise import is_empty
from worker.jsonnet.rendered import TemplateFailed

_INDEX: Final = re.compile(r"\[\d+\]")
_PERSON: Final = re.compile(r"^users\[\]\.")

_RULES: Final[Sequence[tuple[str, str]]] = (
    (r"identifiers\.email|attributes\.email", "an email is needed: something@example.com"),
    (
        r"(identifiers|attributes)\.phone_number",
        "a phone number that exists is needed, as +14155550123, or one of delivery.phone_region",
    ),
    (r"identifiers\..*", "identifiers that many people share (0, 1, null, anonymous) are blocked"),
    (r"attributes\..*_optin", "an opt-in is true or false; t, f, yes, no, 1 and 0 are understood"),
    (r"attributes\.age", "an age is a number from 0 to 150"),
    (r"attributes\.birthday", "a birthday is a date, or a time in RFC 3339"),
    (r"attributes\.language", "a language is one of ISO 639, as en_US"),
    (r"attributes\.country", "a country is one of ISO 3166, as US"),
    (r"attributes\.(static_segment_id|list_id)", "contact lists are numbers"),
    (
        r"attributes\.(?!custom)\w+",
        "it is none of Insider's own attributes; attributes of yours stand under custom",
    ),
    (r"events\.event_name", "the name of an event begins with a to z or 0 to 9, then also . _ -"),
    (r"events\.timestamp", "the time of an event is in RFC 3339"),
    (r"events.*", "Insider takes event_name, timestamp and event_params of an event"),
    (r"(custom\.)?(partial|whole)", "it names attributes as Insider's attribute/delete takes them"),
)
_CHANGES: Final[Sequence[tuple[str, str]]] = (
    (r"phone_number", "phone numbers are sent in E.164"),
    (r"_optin", "opt-ins are sent as true or false"),
    (r"timestamp|birthday", "times are sent in RFC 3339, in UTC, ending in Z"),
    (r"language", "languages are sent as en_US"),
    (r"country", "countries are sent as two capital letters"),
    (r"email", "emails are sent without spaces, in lower case"),
    (r"age", "ages are sent as numbers"),
    (r"event_name", "names of events are sent in lower case"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """A field that is sent otherwise than rendered, or not at all.

    Args:
        path: The path in the body, such as `users[0].attributes.age`.
    """

    path: str
    did: Literal["left out", "changed", "added"]
    why: str
    before: Any = None
    after: Any = None


def document_of(one: Rehearsed) -> dict[str, Any]:
    """Return the result for an event as commands print it with `--json`."""
    base: dict[str, Any] = {"event": one.name, "outcome": one.rendering}
    if one.rendering == "skipped":
        return base | {"reason": one.reason, "message": one.message}
    if one.rendering == "failed":
        place = one.result if isinstance(one.result, TemplateFailed) else TemplateFailed("", "", 0)
        return base | {"message": one.message, "file": place.file, "line": place.line}
    if one.shaping is None:
        return base | {"body": one.body}
    return base | {
        "body": one.body,
        "sent": one.sent,
        **one.target,
        "reason": one.reason,
        "message": one.message,
        "changes": [asdict(each) for each in changes_of_rehearsed(one)],
    }


def changes_of_rehearsed(one: Rehearsed) -> list[Change]:
    """Return the changes that shaping made to an event; none if nothing changed or is sent."""
    if one.shaped is None or one.shaped.users == (one.body,):
        return []
    return changes_of(one.body, one.sent, one.shaped.dropped)


def changes_of(body: Any, sent: Any, dropped: Sequence[str]) -> list[Change]:
    """Compare a rendered body with the body that would be sent.

    `dropped` names what shaping found to be wrong.
    """
    before, after = dict(leaves(body)), dict(leaves(sent))
    gone = [
        Change(path, "left out", _why_gone(path, value, dropped), value)
        for path, value in before.items()
        if path not in after
    ]
    other = [
        Change(path, "changed", _why_changed(path), before[path], value)
        for path, value in after.items()
        if path in before and not are_equal(before[path], value)
    ]
    more = [
        Change(path, "added", "shaping puts it in", None, value)
        for path, value in after.items()
        if path not in before
    ]
    return gone + other + more


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of each scalar, empty list and empty object."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from leaves(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from leaves(part, f"{path}[{index}]")
    else:
        yield path, value


def field_of(path: str) -> str:
    """Return a path without the positions in lists, which is the same for every person."""
    return _INDEX.sub("[]", path)


def are_equal(one: Any, other: Any) -> bool:
    """Say whether two values of JSON are equal and of one type."""
    return type(one) is type(other) and bool(one == other)


def _why_gone(path: str, value: Any, dropped: Sequence[str]) -> str:
    if is_empty(value):
        return "it is empty: what is not known is not sent"
    name = _INDEX.sub("", _PERSON.sub("", field_of(path)))
    wrong = next((each for each in dropped if name == each or name.startswith(f"{each}.")), "")
    if not wrong:
        if "too_old" in dropped and name.startswith("events"):
            return "Insider does not write events that are so old"
        return "nothing of what it belongs to is sent"
    return next((why for pattern, why in _RULES if re.fullmatch(pattern, wrong)), "it is not valid")


def _why_changed(path: str) -> str:
    return next((why for part, why in _CHANGES if re.search(part, path)), "its form is corrected")

"""`segrelay template render`: render events with a template.

The changes that shaping made to a rendered body, with the reasons.
"""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer

from segrelay.jsonnet.rendered import Killed, TemplateBroken, TemplateFailed
from segrelay.ops.templates.events import preview_named
from segrelay.ops.templates.workspace import (
    Folder,
    Given,
    TemplateArgument,
    TriggerName,
    workspace_of,
)
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import object_of
from segrelay.worker.checks.preview import Did, Previewed, differences
from segrelay.worker.destinations.normalise import is_empty
from segrelay.worker.errors import WeMustAct

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


_DIDS: Final[tuple[Did, ...]] = ("left out", "changed", "added")


@dataclass(frozen=True, slots=True)
class Change:
    """A field that is sent otherwise than rendered, or not at all.

    Args:
        path: The path in the body, such as `users[0].attributes.age`.
    """

    path: str
    did: Did
    why: str
    before: Any = None
    after: Any = None


def document_of(one: Previewed) -> dict[str, Any]:
    """Return the result for an event as commands print it with `--json`."""
    base: dict[str, Any] = {"event": one.name, "outcome": one.rendering}
    if one.rendering == "skipped":
        return base | {"reason": one.reason, "message": one.message}
    if one.rendering == "failed":
        failed = one.result if isinstance(one.result, TemplateFailed) else TemplateFailed("", "", 0)
        return base | {"message": one.message, "file": failed.file, "line": failed.line}
    if one.shaping is None:
        return base | {"body": one.body}
    return base | {
        "body": one.body,
        "sent": one.sent,
        **one.target,
        "reason": one.reason,
        "message": one.message,
        "changes": [asdict(each) for each in changes_of_previewed(one)],
    }


def changes_of_previewed(one: Previewed) -> list[Change]:
    """Return the changes that shaping made to an event; none if nothing changed or is sent."""
    if one.shaped is None or one.shaped.users == (one.body,):
        return []
    return changes_of(one.body, one.sent, one.shaped.dropped)


def changes_of(body: Any, sent: Any, dropped: Sequence[str]) -> list[Change]:
    """Compare a rendered body with the body that would be sent.

    `dropped` names what shaping found to be wrong.
    """
    found = []
    for path, did, before, after in differences(body, sent):
        match did:
            case "left out":
                why = _why_gone(path, before, dropped)
            case "changed":
                found_why = (why for part, why in _CHANGES if re.search(part, path))
                why = next(found_why, "its form is corrected")
            case "added":
                why = "shaping puts it in"
        found.append(Change(path, did, why, before, after))
    return sorted(found, key=lambda one: _DIDS.index(one.did))


def field_of(path: str) -> str:
    """Return a path without the positions in lists, which is the same for every person."""
    return _INDEX.sub("[]", path)


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


def render(
    template: TemplateArgument,
    file: Annotated[
        str,
        typer.Argument(
            help="A payload or an array of them, or a dead letter's id.",
            metavar="FILE",
        ),
    ],
    *,
    trigger: TriggerName = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what is sent, too, and why they differ.")
    ] = False,
    templates: Folder = None,
    settings: Given = "",
) -> Result:
    """Print what a template makes of each segment event of a payload.

    FILE may also be the id of a dead letter. The exit code is 2 if the template fails for one.
    """
    workspace = workspace_of(templates)
    name = workspace.name_of(template)
    outcomes = preview_named(
        workspace, name, file, trigger, object_of(settings, "--settings") if settings else None
    )
    for number, one in enumerate(outcomes, 1):
        if isinstance(one.result, Killed):
            raise TemplateBroken(
                f"{name}: rendering event {number} of {len(outcomes)} ends or hangs the process.",
                name,
            )
    return Result(
        [document_of(one) for one in outcomes],
        *(line for one in outcomes for line in _lines(one, explain=explain)),
        notes=[one.in_words for one in outcomes if one.rendering != "rendered"]
        or ["No trigger takes such an event with it: name one by --trigger."]
        * (explain and not any(one.shaping for one in outcomes)),
        exit_code=WeMustAct.exit_code if any(one.rendering == "failed" for one in outcomes) else 0,
    )


def _lines(one: Previewed, *, explain: bool) -> Iterator[str]:
    if one.rendering != "rendered":
        return
    if not explain or not one.shaping:
        yield _pretty(one.body)
        return
    yield f"{one.name}:"
    yield _pretty(one.body)
    if one.sent is None:
        yield f"nothing is sent ({one.reason}): {one.message}"
        return
    for part, value in (*one.target.items(), ("sent", one.sent)):
        yield f"{part}: {value if isinstance(value, str) else _pretty(value)}"
    for change in changes_of_previewed(one):
        yield f"  {change.path} is {change.did}: {change.why}"


def _pretty(value: Any) -> str:
    return json_text.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)

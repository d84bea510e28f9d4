"""Tries each trigger's template on a sample, and checks whether the result fits the trigger's path.

An error is what would make every delivery of the trigger fail; a warning is worth a look: a shipped
sample can't know what a template needs, so its failing proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from segrelay.jsonnet.rendered import (
    Asserted,
    Killed,
    Rendered,
    Result,
    Row,
    TemplateBroken,
    TemplateFailed,
)
from segrelay.worker.checks.audiences import check_audiences, warnings_of
from segrelay.worker.checks.preview import (
    RENDER_SECONDS,
    Candidate,
    Previewed,
    Render,
    failure_without_id,
    preview_as,
    sample_header,
)
from segrelay.worker.checks.samples import (
    Finding,
    Severity,
    entry_of,
    in_want_of_id,
    profile_for,
    sample_row,
)
from segrelay.worker.contract.events import has_id
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.settings.sections import ALL_AUDIENCES, AUDIENCE_ATTRIBUTE
from segrelay.worker.contract.words import AUDIENCE_ID_PATTERN, Death, Direction
from segrelay.worker.destinations.api import NotSendable, Shaped
from segrelay.worker.destinations.insider.shape import overwrites
from segrelay.worker.destinations.normalise import instant
from segrelay.worker.destinations.registry import api_of, encoding_misfit, path_misfit
from segrelay.worker.errors import UsageWrong

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNTIMED: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of a sample whose event has none, such as a change; any time would do."""

_KILLED: Final = {
    "time": f"{{}} does not come to an end within {RENDER_SECONDS:g} s",
    "crash": "{} kills the process that renders it: it refers to itself or wants too much memory",
}

_UNIDENTIFIED: Final = (
    "{} does not send the identity field `{}` as an identifier: two profiles here may be one"
    " person there, or the contrary"
)
_LEFT_OUT: Final = "{} sends what can't be right and is left out: {}"
_OVERWRITES: Final = (
    "{} overwrites the list of audiences on exit; whether an empty list empties it is not known:"
    " send exits to /api/user/v1/attribute/delete"
)

_INSIDER: Final = "insider"
_IDENTIFIER: Final = re.compile(r"(?:^|_)(?:u?id|uuid|email|phone|mobile|cell)$", re.IGNORECASE)
"""The names of fields that may identify a person."""
_SHORTEST_IDENTIFIER: Final = 5

Weighed = tuple[Severity, str]


def check_triggers(
    settings: Settings, now: datetime, render: Render | None = None
) -> list[Finding]:
    """Check all triggers of a configuration, and how they fit together.

    Args:
        settings: The configuration.
        now: The time of the samples.
        render: Renders the samples; by default each kind of trigger has a process of its own.
    """
    kinds: dict[str, tuple[Any, Sequence[Finding]]] = {}
    bodies: dict[str, Any] = {}
    findings: list[Finding] = []
    for name, trigger in settings.triggers.items():
        kind = kind_of(trigger)
        if kind not in kinds:
            kinds[kind] = _try(settings, trigger, render, now)
        body, found = kinds[kind]
        findings += [replace(finding, trigger=name) for finding in found]
        if body is not None:
            bodies[name] = body
    return findings + list(check_audiences(settings, bodies))


def check_without_ids(
    settings: Settings,
    identified: Collection[str],
    now: datetime,
    render: Render | None = None,
) -> list[Finding]:
    """Warn of templates that fail for an event without the id of its audience.

    Events that are made from rows of backfills, syncs and repairs have it only where it is known.

    Args:
        settings: The configuration; its triggers passed the other checks.
        identified: Slugs whose id Redis knows, and these ids.
        now: The time of the samples.
        render: Function that renders a sample; see `check_triggers`.
    """
    kinds: dict[str, str] = {}
    findings: list[Finding] = []
    for name, trigger in settings.triggers.items():
        audiences = audiences_without_id(settings, trigger, identified)
        if not audiences:
            continue
        kind = kind_of(trigger)
        if kind not in kinds:
            kinds[kind] = _failure_without_id(settings, trigger, render, now)
        if kinds[kind]:
            message = in_want_of_id(kinds[kind], audiences, settings.sync.values())
            findings.append(Finding("warning", message, name))
    return findings


def audiences_without_id(
    settings: Settings, trigger: Trigger, identified: Collection[str]
) -> tuple[str, ...]:
    """Return the audiences of which rows may become events of a trigger, and no id is known."""
    told = settings.told_ids
    synced = [
        sync.audience for sync in settings.sync.values() if sync.on_change or trigger.on != "change"
    ]
    if ALL_AUDIENCES in trigger.audiences:
        fed = synced or ([] if identified or told else ["any audience"])
    else:
        fed = [name for name in trigger.audiences if trigger.on != "change" or name in synced]
    known = {*identified, *told, *told.values()}
    return tuple(
        name
        for name in dict.fromkeys(fed)
        if name not in known and not AUDIENCE_ID_PATTERN.fullmatch(name)
    )


def _failure_without_id(
    settings: Settings, trigger: Trigger, render: Render | None, now: datetime
) -> str:
    """Say where a trigger's sample fails without an id; "" = it does not, or it fails with one."""
    try:
        profile = profile_for(settings, trigger, now)
    except UsageWrong:
        return ""
    one = _sample_of(trigger, profile)
    failed = has_id(profile) and failure_without_id(
        one, trigger, settings, now_us=one.header.time_us, render=render
    )
    return failed.located_message if failed else ""


def kind_of(trigger: Trigger) -> str:
    """Return a text of all settings that the preview of a trigger depends on.

    Triggers that differ in their names and audiences only are of one kind, and tried once.
    """
    return repr(trigger.model_copy(update={"name": "", "audiences": ()}))


def check_trigger(
    settings: Settings, trigger: Trigger, now: datetime, render: Render | None = None
) -> Sequence[Finding]:
    """Render a sample of the trigger's direction, shape it, and say what is wrong with it."""
    return _try(settings, trigger, render, now)[1]


def fails_where_another_renders(
    settings: Settings,
    trigger: Trigger,
    renders_before: Callable[[Sequence[Row]], Sequence[Result]],
    now: datetime,
) -> str:
    """Say why a new template fails for a sample that the old one renders; "" = it does not."""
    profile = profile_for(settings, trigger, now)
    [before] = renders_before([sample_row(profile, trigger.settings)])
    if not isinstance(before, Rendered):
        return ""
    match _preview(settings, trigger, None, profile).result:
        case Killed(cause):
            return _KILLED[cause].format(trigger.main_template)
        case TemplateFailed() as failed:
            at = _location_of(failed, trigger)
            said = "it fails for the sample that the version before renders"
            return f"{said}: {at}: {failed.message}"
        case _:
            return ""


def preview_sample(settings: Settings, trigger: Trigger, now: datetime) -> Previewed | None:
    """Return what would become of a trigger's sample; None if there is no sample or template."""
    try:
        return _preview(settings, trigger, None, profile_for(settings, trigger, now))
    except (TemplateBroken, UsageWrong):
        return None


def _preview(
    settings: Settings, trigger: Trigger, render: Render | None, profile: dict[str, Any]
) -> Previewed:
    """Render and shape a sample as a delivery of a trigger; a sample is never too old."""
    one = _sample_of(trigger, profile)
    [previewed] = preview_as(trigger, [one], settings, now_us=one.header.time_us, render=render)
    return previewed


def _try(
    settings: Settings, trigger: Trigger, render: Render | None, now: datetime
) -> tuple[Any, Sequence[Finding]]:
    """Return the rendered body of a trigger's sample (None if it failed), and the findings."""
    try:
        profile = profile_for(settings, trigger, now)
        previewed = _preview(settings, trigger, render, profile)
    except TemplateBroken as error:
        return None, [Finding("error", _located(error), trigger.name)]
    except UsageWrong as error:
        return None, [Finding("error", error.message, trigger.name)]
    weighed = _judge(settings, trigger, profile, previewed)
    return previewed.body, [Finding(severity, text, trigger.name) for severity, text in weighed]


def _located(error: TemplateBroken) -> str:
    location = f"{error.file}:{error.line}:{error.column}"
    is_located = not error.line or error.message.startswith(f"{location}:")
    return error.message if is_located else f"{location}: {error.message}"


def _doubt(trigger: Trigger, message: str) -> Weighed:
    """Return a problem with its weight: only the trigger's own sample has to succeed."""
    if trigger.sample:
        return "error", message
    return "warning", f"{message} (with the shipped sample; `sample` names a better one)"


def _judge(
    settings: Settings, trigger: Trigger, profile: Mapping[str, Any], previewed: Previewed
) -> Iterable[Weighed]:
    match previewed.result:
        case Killed(cause):
            return [("error", _KILLED[cause].format(trigger.main_template))]
        case Asserted(message):
            return [_doubt(trigger, f"{trigger.main_template} skips it: {message}")]
        case TemplateFailed() as failed:
            return [_doubt(trigger, f"{_location_of(failed, trigger)}: {failed.message}")]
        case _:
            return _judge_body(settings, trigger, profile, previewed)


def _location_of(failed: TemplateFailed, trigger: Trigger) -> str:
    return f"{failed.file}:{failed.line}" if failed.line else failed.file or trigger.main_template


def _judge_body(
    settings: Settings, trigger: Trigger, profile: Mapping[str, Any], previewed: Previewed
) -> Iterator[Weighed]:
    template, body = trigger.main_template, previewed.body
    name = settings.destinations[trigger.destination].api
    if misfit := path_misfit(name, body, trigger.url.text):
        yield "error", f"{template} does not fit {trigger.url.text}: {misfit}"
        return
    if wrong := encoding_misfit(settings, trigger, body):
        yield "error", f"{template}: {wrong}"
        return
    if _is_unidentified(settings, trigger, profile, previewed.value):
        yield "warning", _UNIDENTIFIED.format(template, settings.delivery.identity)
    match previewed.shaping:
        case NotSendable(Death(), message):
            yield _doubt(trigger, f"{template} yields nothing valid: {message}")
        case NotSendable(_, message):
            yield "warning", f"{template} yields nothing to send: {message}"
        case Shaped(users, root, dropped):
            if dropped:
                yield "warning", _LEFT_OUT.format(template, ", ".join(dict.fromkeys(dropped)))
            if name == _INSIDER and _overwrites_on_exit(trigger, users, root):
                yield "warning", _OVERWRITES.format(template)
    if name == _INSIDER:
        attribute = str(trigger.settings[AUDIENCE_ATTRIBUTE])
        for message in warnings_of(body, attribute, profile):
            yield "warning", f"{template}: {message}"


def _sample_of(trigger: Trigger, profile: Mapping[str, Any]) -> Candidate:
    """Return the event of a sample, which nobody sent."""
    entry = entry_of(profile)
    moment = instant(entry.get(trigger.on)) or _UNTIMED
    time_us = (moment - _EPOCH) // timedelta(microseconds=1)
    header = sample_header(str(entry.get("slug") or "sample"), Direction(trigger.on), time_us)
    return Candidate("", trigger.name, header, orjson.dumps(profile))


def _is_unidentified(
    settings: Settings, trigger: Trigger, profile: Mapping[str, Any], body: Any
) -> bool:
    """Say whether a body identifies a person, and not by the identity field.

    What an endpoint gets may be about nobody, such as a message in a channel.
    """
    identity = settings.delivery.identity
    keys = ("_id", "payload_id") if identity == "id" else (identity,)
    value = next((profile[key] for key in keys if profile.get(key)), None)
    api = api_of(settings, trigger)
    if value is None or api.identifies(body, str(value)):
        return False
    if settings.destinations[trigger.destination].api == _INSIDER:
        return True
    others = (
        text
        for name, text in profile.items()
        if _IDENTIFIER.search(name) and len(str(text)) >= _SHORTEST_IDENTIFIER
    )
    return any(api.identifies(body, str(text)) for text in others)


def _overwrites_on_exit(
    trigger: Trigger, users: Sequence[dict[str, Any]], root: Mapping[str, Any]
) -> bool:
    attribute = trigger.settings[AUDIENCE_ATTRIBUTE]
    return trigger.on == "exit" and any(
        overwrites(user, root) and attribute in user.get("attributes", {}).get("custom", {})
        for user in users
    )

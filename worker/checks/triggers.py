"""Tries each trigger's template on a sample, and checks whether the result fits the trigger's path.

An error is what would make every delivery of the trigger fail; a warning is worth a look: a shipped
sample can't know what a template needs, so its failing proves nothing.

The triggers of a destination have to fit together: each list has a way out. A rendered body shows
how it changes a person's list of audiences at Insider.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

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
from segrelay.worker.checks.preview import (
    RENDER_SECONDS,
    Candidate,
    Finding,
    Previewed,
    Render,
    Severity,
    entry_of,
    failure_without_id,
    in_want_of_id,
    preview_as,
    profile_for,
    sample_header,
    sample_row,
)
from segrelay.worker.contract.events import has_id
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE, Settings, Trigger
from segrelay.worker.contract.settings.sections import (
    ALL_AUDIENCES,
    AUDIENCE_ATTRIBUTE,
    AUDIENCE_FLAG_PREFIX,
)
from segrelay.worker.contract.words import AUDIENCE_ID_PATTERN, Death, Direction
from segrelay.worker.destinations.api import NotSendable, Shaped
from segrelay.worker.destinations.insider.api import identifies
from segrelay.worker.destinations.insider.shape import deletes, flag_name, overwrites
from segrelay.worker.destinations.normalise import instant
from segrelay.worker.destinations.registry import encoding_misfit, path_misfit
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

Weighed = tuple[Severity, str]


def check_triggers(
    settings: Settings, now: datetime, render: Render | None = None
) -> list[Finding]:
    """Check all triggers of a configuration, and how they fit together.

    Args:
        settings: The configuration.
        now: The time of the samples.
        render: A function that renders the samples; None = each kind of trigger in a process of its
            own.
    """
    kinds: dict[str, tuple[Any, Sequence[Finding]]] = {}
    bodies: dict[str, Any] = {}
    findings: list[Finding] = []
    for name, trigger in settings.triggers.items():
        kind = kind_of(trigger)
        if kind not in kinds:
            kinds[kind] = check_trigger(settings, trigger, now, render)
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
        identified: The slugs whose id Redis knows, and these ids.
        now: The time of the samples.
        render: A function that renders a sample, as in `check_triggers`.
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
            message = in_want_of_id(kinds[kind], audiences)
            findings.append(Finding("warning", message, name))
    return findings


def audiences_without_id(
    settings: Settings, trigger: Trigger, identified: Collection[str]
) -> tuple[str, ...]:
    """Return the audiences of which rows may become events of a trigger, and no id is known."""
    synced = [
        sync.audience for sync in settings.sync.values() if sync.on_change or trigger.on != "change"
    ]
    if ALL_AUDIENCES in trigger.audiences:
        fed = synced or ([] if identified else ["any audience"])
    else:
        fed = [name for name in trigger.audiences if trigger.on != "change" or name in synced]
    return tuple(
        name
        for name in dict.fromkeys(fed)
        if name not in identified and not AUDIENCE_ID_PATTERN.fullmatch(name)
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
    after = _preview(settings, trigger, None, profile).result
    if isinstance(after, Killed):
        return _KILLED[after.cause].format(trigger.main_template)
    if not isinstance(after, TemplateFailed):
        return ""
    said = "it fails for the sample that the version before renders"
    return f"{said}: {_location_of(after, trigger)}: {after.message}"


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


def check_trigger(
    settings: Settings, trigger: Trigger, now: datetime, render: Render | None = None
) -> tuple[Any, Sequence[Finding]]:
    """Return the rendered body of a trigger's sample (None if it failed), and the findings."""
    try:
        profile = profile_for(settings, trigger, now)
        previewed = _preview(settings, trigger, render, profile)
    except TemplateBroken as error:
        at = f"{error.file}:{error.line}:{error.column}: "
        is_located = not error.line or error.message.startswith(at)
        told = error.message if is_located else at + error.message
        return None, [Finding("error", told, trigger.name)]
    except UsageWrong as error:
        return None, [Finding("error", error.message, trigger.name)]
    weighed = _judge(settings, trigger, profile, previewed)
    return previewed.body, [Finding(severity, text, trigger.name) for severity, text in weighed]


def _doubt(trigger: Trigger, message: str) -> Weighed:
    """Return a problem with its weight: only the trigger's own sample has to succeed."""
    if trigger.sample:
        return "error", message
    return "warning", f"{message} (with the shipped sample; `sample` names a better one)"


def _location_of(failed: TemplateFailed, trigger: Trigger) -> str:
    return f"{failed.file}:{failed.line}" if failed.line else failed.file or trigger.main_template


def _judge(
    settings: Settings, trigger: Trigger, profile: Mapping[str, Any], previewed: Previewed
) -> Iterator[Weighed]:
    template, body = trigger.main_template, previewed.body
    name = settings.destinations[trigger.destination].api
    attribute = str(trigger.settings[AUDIENCE_ATTRIBUTE])
    match previewed.result:
        case Killed(cause):
            yield "error", _KILLED[cause].format(template)
            return
        case Asserted(message):
            yield _doubt(trigger, f"{template} skips it: {message}")
            return
        case TemplateFailed() as failed:
            yield _doubt(trigger, f"{_location_of(failed, trigger)}: {failed.message}")
            return
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
            listing = [user for user in users if adds_to({"users": [user]}, attribute)]
            is_exit = name == _INSIDER and trigger.on == "exit"
            if is_exit and any(overwrites(user, root) for user in listing):
                yield "warning", _OVERWRITES.format(template)
    if name == _INSIDER:
        for message in dict.fromkeys(warnings_of(body, attribute, profile)):
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
    """Say whether a body for Insider identifies a person, and not by the identity field."""
    identity = settings.delivery.identity
    keys = ("_id", "payload_id") if identity == "id" else (identity,)
    value = next((profile[key] for key in keys if profile.get(key)), None)
    is_insider = settings.destinations[trigger.destination].api == _INSIDER
    return is_insider and value is not None and not identifies(body, str(value))


_MEMBERSHIPS: Final = ("_segments", "segments_all", "segments")
"""The fields of a profile that list its audiences, by Lytics' documentation."""
_IDENTIFIERS: Final = frozenset({"email", "phone_number", "uuid"})
_FOR_LYTICS: Final = "ly_template_"
_REMOVALS: Final = ("partial", "whole")
_MANY: Final = (dict, list)


def users_of(body: object) -> list[dict[str, Any]]:
    """Return the users of a body; none where it has another form."""
    users = _object(body).get("users")
    return [user for user in users if isinstance(user, dict)] if isinstance(users, list) else []


def _object(value: object, *path: str) -> Mapping[str, Any]:
    """Return the object at a path of a value, or an empty one where it has another form."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def identifiers_of(body: object) -> dict[str, Any]:
    """Return the identifiers of a body's first user; custom ones as `custom.NAME`."""
    user = next(iter(users_of(body)), {})
    identifiers = {**_object(user, "identifiers")}
    custom = _object(identifiers.pop("custom", None))
    return identifiers | {f"custom.{name}": value for name, value in custom.items()}


def _custom(user: Mapping[str, Any]) -> Mapping[str, Any]:
    return _object(user, "attributes", "custom")


def adds_to(body: object, attribute: str) -> bool:
    """Say whether a body writes the list of audiences."""
    return any(attribute in _custom(user) for user in users_of(body))


def takes_from(body: object, attribute: str) -> bool:
    """Say whether a body takes something out of the list of audiences."""
    return any(
        attribute in _deleted(_object(user, "custom"))
        or (attribute in _custom(user) and overwrites(user, _object(body)))
        for user in users_of(body)
    )


def sets_flag(body: object, prefix: str, *, to: bool) -> bool:
    """Say whether a body sets a boolean attribute that stands for one audience."""
    customs = [item for user in users_of(body) for item in _custom(user).items()]
    return any(value is to and name.startswith(prefix) for name, value in customs)


def warnings_of(body: object, attribute: str, profile: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with a body, whichever trigger it is for; some sentences come twice."""
    root = _object(body)
    if taken := [name for name in root if name.startswith(_FOR_LYTICS)]:
        yield (
            f"{', '.join(taken)}: Lytics takes URL, headers and body of the request from these, and"
            " here they would be sent. Return the body alone; a trigger's url and headers may have"
            " templates of their own."
        )
    for user in users_of(body):
        yield from _of_user(user, root, attribute, profile)
    yield from misplaced_of(body)
    if str(root.get("error_callback_endpoint")).startswith("http://"):
        yield (
            "error_callback_endpoint is an http:// address: Insider would send personal data there"
            " unencrypted; use https://."
        )


def _of_user(
    user: Mapping[str, Any], root: Mapping[str, Any], attribute: str, profile: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the problems of how a user changes the list of audiences, and what it deletes."""
    if isinstance(_custom(user).get(attribute), list) and overwrites(user, root):
        switch = "not_append: true" if user.get("not_append") else "append: false"
        yield (
            f"{switch} overwrites {attribute} with the list as it was at that event, so an older"
            " event brings back what a newer exit took away; leave it out and send only the"
            " slug of the audience."
        )

    if attribute in _texts(_object(user, "custom").get("whole")):
        yield (
            f"it deletes {attribute} as a whole, and with it the audiences that the person is"
            f" still in; remove only the slug that was exited, under custom.partial.{attribute}."
        )
    removed = _object(user, "custom", "partial").get(attribute)
    entry = _object(next(iter(profile.get("segment_events") or ()), None))
    inside = {slug for field in _MEMBERSHIPS for slug in _texts(profile.get(field))}
    if too_much := sorted(inside.intersection(_texts(removed)) - {entry.get("slug")}):
        yield (
            f"it deletes {', '.join(too_much)} from {attribute}, which the person of the sample is"
            " still in; remove only the slug that was exited: event.segSlug()."
        )
    own = _object(user, "identifiers", "custom")
    named = [name for name in _deleted(user) if name in _IDENTIFIERS]
    named += [f"custom.{name}" for name in _deleted(_object(user, "custom")) if name in own]
    if named:
        yield (
            f"it deletes {', '.join(named)}: Insider can't delete an attribute that is an"
            " identifier; leave it out."
        )


def _texts(values: object) -> list[str]:
    listed = values if isinstance(values, list) else [values]
    return [value for value in listed if isinstance(value, str)]


def misplaced_of(body: object) -> Iterator[str]:
    """Yield problems of a body that puts something where no path of Insider's looks for it.

    The exit template of the documentation's page has all of these problems.
    """
    for user in users_of(body):
        wrong = [
            (f"{at}.{kind}", kind)
            for at in ("attributes", "attributes.custom")
            for kind in _REMOVALS
            if isinstance(_object(user, *at.split(".")).get(kind), _MANY)
        ]
        for name, kind in wrong:
            yield (
                f"{kind} stands under {name}, where Insider writes an attribute of that name and"
                " removes nothing; for /api/user/v1/attribute/delete it belongs to the user, as"
                f" custom.{kind}."
            )
        removes = any(
            kind in part for part in (user, _object(user, "custom")) for kind in _REMOVALS
        )
        if (wrong or removes) and user.get("events"):
            yield (
                "events stand in a body that removes something: /api/user/v1/attribute/delete"
                " takes none; send the event by a second trigger to /api/user/v1/upsert, with"
                " insider/exit-event.jsonnet."
            )


def _deleted(parts: Mapping[str, Any]) -> list[str]:
    return [*_texts(parts.get("whole", [])), *_object(parts, "partial")]


_EACH: Final = "…"


class _Keeper(NamedTuple):
    """A trigger that writes to the list of audiences, or takes out of it.

    Attributes:
        attribute: The list; or, where each audience has an attribute, how these begin, and `…`.
    """

    trigger: Trigger
    attribute: str

    @property
    def way_out(self) -> str:
        """Return the template and path that take people out of the list that this trigger fills."""
        if self.attribute.endswith(_EACH):
            return "insider/flag-exit.jsonnet and /api/user/v1/upsert"
        return "insider/exit.jsonnet and /api/user/v1/attribute/delete"


def list_of(trigger: Trigger, body: Any) -> str:
    """Return the attribute in which a trigger keeps its list of audiences; "" = none."""
    attribute = str(trigger.settings[AUDIENCE_ATTRIBUTE])
    if body is None:
        is_kept = trigger.on == "enter" or deletes(trigger.url.text)
    else:
        is_kept = adds_to(body, attribute) or takes_from(body, attribute)
    return attribute if is_kept else ""


def check_audiences(settings: Settings, bodies: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings about triggers of a destination that do not fit together."""
    for name, destination in settings.destinations.items():
        if destination.api != _INSIDER:
            continue
        triggers = settings.triggers_of(name)
        for trigger in triggers:
            yield from _unused_setting(trigger, bodies.get(trigger.name))
        keepers = [one for each in triggers if (one := _keeper(each, bodies.get(each.name)))]
        leaving = [one for one in keepers if one.trigger.on == "exit"]
        for keeper in keepers:
            if keeper.trigger.on == "enter" and keeper.trigger.name in bodies:
                yield from _no_way_out(keeper, leaving)
                yield from _other_people(keeper, leaving, bodies)
        yield from _flags_that_are_one(keepers)


def _keeper(trigger: Trigger, body: Any) -> _Keeper | None:
    """Return the list that an enter trigger adds to, or an exit trigger takes from; None = none."""
    if trigger.on not in {"enter", "exit"}:
        return None
    is_enter, attribute = trigger.on == "enter", list_of(trigger, body)
    does = adds_to if is_enter else takes_from
    if attribute and (body is None or does(body, attribute)):
        return _Keeper(trigger, attribute)
    prefix = trigger.audience_flag_prefix
    return _Keeper(trigger, prefix + _EACH) if sets_flag(body, prefix, to=is_enter) else None


def _other_people(
    entering: _Keeper, leaving: Sequence[_Keeper], bodies: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield exits that may mean another person than the entrance: an identifier differs.

    Samples of different people differ in their email, too, and are not compared.
    """
    entered = identifiers_of(bodies.get(entering.trigger.name))
    for keeper in leaving:
        left = identifiers_of(bodies.get(keeper.trigger.name))
        # A sample may lack the field: an identifier that is empty in one body tells nothing.
        filled = [name for name in left if left[name] and entered.get(name)]
        other = sorted(name for name in filled if left[name] != entered[name])
        is_same = "email" in filled and "email" not in other
        if other and is_same and keeper.attribute == entering.attribute:
            yield Finding(
                "warning",
                f"{keeper.trigger.template} takes {', '.join(other)} from another field than"
                f" {entering.trigger.template} of {entering.trigger.name}: the exit may mean"
                " another person than the entrance; identify people in one way in all templates,"
                " as insider.identifiers does.",
                keeper.trigger.name,
            )


def _flags_that_are_one(keepers: Sequence[_Keeper]) -> Iterator[Finding]:
    """Yield findings about audiences that share an attribute."""
    slugs: dict[str, set[str]] = {}
    for keeper in keepers:
        if keeper.attribute.endswith(_EACH):
            for audience in keeper.trigger.audiences:
                name = flag_name(keeper.trigger.audience_flag_prefix, audience)
                slugs.setdefault(name, set()).add(audience)
    for name, same in sorted(slugs.items()):
        if len(same) > 1:
            yield Finding(
                "error",
                f"the audiences {', '.join(sorted(same))} have one attribute, {name}: who leaves"
                f" one would leave all; give their triggers another {AUDIENCE_FLAG_PREFIX}.",
            )


def _unused_setting(trigger: Trigger, body: Any) -> Iterator[Finding]:
    attribute, other = str(trigger.settings[AUDIENCE_ATTRIBUTE]), DEFAULT_AUDIENCE_ATTRIBUTE
    is_other = attribute != other and (adds_to(body, other) or takes_from(body, other))
    if is_other and not list_of(trigger, body):
        yield Finding(
            "warning",
            f"its settings name {attribute} as the list of audiences, but {trigger.template} writes"
            f' to {other}; let the template use event.jobConfGet("{AUDIENCE_ATTRIBUTE}").',
            trigger.name,
        )


def _no_way_out(entering: _Keeper, leaving: Sequence[_Keeper]) -> Iterator[Finding]:
    without: list[str] = []
    for audience in entering.trigger.audiences:
        exits = [one for one in leaving if one.trigger.wants(audience)]
        same = [one for one in exits if one.attribute == entering.attribute]
        if exits and not same:
            leaves, is_flag = exits[0], entering.attribute.endswith(_EACH)
            setting = AUDIENCE_FLAG_PREFIX if is_flag else AUDIENCE_ATTRIBUTE
            yield Finding(
                "warning",
                f"it adds {audience} to {entering.attribute}, but {leaves.trigger.name} takes it"
                f" out of {leaves.attribute}: nobody would ever leave; give both the same"
                f" {setting}, or the exit {entering.way_out}.",
                entering.trigger.name,
            )
        elif not exits and not _may_be_meant(audience, leaving):
            without.append("any audience" if audience == ALL_AUDIENCES else audience)
    if without:
        yield Finding(
            "warning",
            f"nothing takes {', '.join(without)} out of {entering.attribute} again: there is no"
            f" trigger on exit for it that does; add one with {entering.way_out}.",
            entering.trigger.name,
        )


def _may_be_meant(audience: str, leaving: Sequence[_Keeper]) -> bool:
    """Say whether an exit may mean this audience: one names it by id, the other by slug."""
    is_id = bool(AUDIENCE_ID_PATTERN.fullmatch(audience))
    others = {name for keeper in leaving for name in keeper.trigger.audiences} - {ALL_AUDIENCES}
    ids = {bool(AUDIENCE_ID_PATTERN.fullmatch(other)) for other in others}
    return audience != ALL_AUDIENCES and (not is_id) in ids

"""Checks that the triggers of a destination fit together: each list has a way out.

A rendered body shows how it changes a person's list of audiences at Insider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from segrelay.worker.checks.samples import Finding
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE, Settings, Trigger
from segrelay.worker.contract.settings.sections import (
    ALL_AUDIENCES,
    AUDIENCE_ATTRIBUTE,
    AUDIENCE_FLAG_PREFIX,
)
from segrelay.worker.contract.words import AUDIENCE_ID_PATTERN
from segrelay.worker.destinations.insider.shape import deletes, flag_name, overwrites

_MEMBERSHIPS: Final = ("_segments", "segments_all", "segments")
"""The fields of a profile that list its audiences, by Lytics' documentation."""
_IDENTIFIERS: Final = frozenset({"email", "phone_number", "uuid"})
_FOR_LYTICS: Final = "ly_template_"
_PLAIN: Final = "http://"
_REMOVALS: Final = ("partial", "whole")
_MANY: Final = (dict, list)


def users_of(body: object) -> list[dict[str, Any]]:
    """Return the users of a body; none where it has another form."""
    users = _object(body).get("users")
    return [user for user in users if isinstance(user, dict)] if isinstance(users, list) else []


def identifiers_of(body: object) -> dict[str, Any]:
    """Return the identifiers of a body's first user; custom ones as `custom.NAME`."""
    user = next(iter(users_of(body)), {})
    identifiers = _object(user.get("identifiers"))
    custom = _object(identifiers.get("custom"))
    plain = {name: value for name, value in identifiers.items() if name != "custom"}
    return plain | {f"custom.{name}": value for name, value in custom.items()}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def adds_to(body: object, attribute: str) -> bool:
    """Say whether a body writes the list of audiences."""
    return any(attribute in _custom(user) for user in users_of(body))


def _custom(user: Mapping[str, Any]) -> Mapping[str, Any]:
    return _object(_object(user.get("attributes")).get("custom"))


def takes_from(body: object, attribute: str) -> bool:
    """Say whether a body takes something out of the list of audiences."""
    return any(
        attribute in _removed(user)
        or _takes_whole(user, attribute)
        or (attribute in _custom(user) and overwrites(user, _object(body)))
        for user in users_of(body)
    )


def sets_flag(body: object, prefix: str, *, to: bool) -> bool:
    """Say whether a body sets a boolean attribute that stands for one audience."""
    return any(
        value is to and name.startswith(prefix)
        for user in users_of(body)
        for name, value in _custom(user).items()
    )


def _removed(user: Mapping[str, Any]) -> Mapping[str, Any]:
    return _object(_object(user.get("custom")).get("partial"))


def _takes_whole(user: Mapping[str, Any], attribute: str) -> bool:
    whole = _object(user.get("custom")).get("whole")
    return isinstance(whole, list) and attribute in whole


def warnings_of(body: object, attribute: str, profile: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with a body, whichever trigger it is for."""
    yield from dict.fromkeys(_all(body, attribute, profile))


def misplaced_of(body: object) -> Iterator[str]:
    """Yield problems of a body that puts something where no path of Insider's looks for it."""
    for user in users_of(body):
        yield from _of_misplaced(user)


def _all(body: object, attribute: str, profile: Mapping[str, Any]) -> Iterator[str]:
    root = _object(body)
    if taken := [name for name in root if name.startswith(_FOR_LYTICS)]:
        yield (
            f"{', '.join(taken)}: Lytics takes URL, headers and body of the request from these, and"
            " here they would be sent. Return the body alone; a trigger's url and headers may have"
            " templates of their own."
        )
    for user in users_of(body):
        yield from _of_overwriting(user, root, attribute)
        yield from _of_taking_too_much(user, attribute, profile)
        yield from _of_identifiers(user)
        yield from _of_misplaced(user)
    endpoint = root.get("error_callback_endpoint")
    if isinstance(endpoint, str) and endpoint.startswith(_PLAIN):
        yield (
            "error_callback_endpoint is an http:// address: Insider would send personal data there"
            " unencrypted; use https://."
        )


def _of_overwriting(
    user: Mapping[str, Any], root: Mapping[str, Any], attribute: str
) -> Iterator[str]:
    if isinstance(_custom(user).get(attribute), list) and overwrites(user, root):
        switch = "not_append: true" if user.get("not_append") else "append: false"
        yield (
            f"{switch} overwrites {attribute} with the list as it was at that event, so an older"
            " event brings back what a newer exit took away; leave it out and send only the"
            " slug of the audience."
        )


def _of_taking_too_much(
    user: Mapping[str, Any], attribute: str, profile: Mapping[str, Any]
) -> Iterator[str]:
    entry = _object(next(iter(profile.get("segment_events") or ()), None))
    if _takes_whole(user, attribute):
        yield (
            f"it deletes {attribute} as a whole, and with it the audiences that the person is"
            f" still in; remove only the slug that was exited, under custom.partial.{attribute}."
        )
    removed = _removed(user).get(attribute)
    inside = {slug for field in _MEMBERSHIPS for slug in _texts(profile.get(field))}
    too_much = sorted(inside.intersection(_texts(removed)) - {entry.get("slug")})
    if too_much:
        yield (
            f"it deletes {', '.join(too_much)} from {attribute}, which the person of the sample is"
            " still in; remove only the slug that was exited: event.segSlug()."
        )


def _texts(values: object) -> list[str]:
    listed = values if isinstance(values, list) else [values]
    return [value for value in listed if isinstance(value, str)]


def _of_identifiers(user: Mapping[str, Any]) -> Iterator[str]:
    """Yield a problem if a user deletes what may be an identifier: Insider can't delete these."""
    identifiers = _object(user.get("identifiers"))
    custom = _object(user.get("custom"))
    named = [name for name in _deleted(user) if name in _IDENTIFIERS]
    named += [
        f"custom.{name}" for name in _deleted(custom) if name in _object(identifiers.get("custom"))
    ]
    if named:
        yield (
            f"it deletes {', '.join(named)}: Insider can't delete an attribute that is an"
            " identifier; leave it out."
        )


def _of_misplaced(user: Mapping[str, Any]) -> Iterator[str]:
    """Yield problems of a user with parts where neither path of Insider's looks for them.

    The exit template of the documentation's page has all of these problems.
    """
    attributes = _object(user.get("attributes"))
    custom = _object(attributes.get("custom"))
    wrong = [f"attributes.{name}" for name in _REMOVALS if isinstance(attributes.get(name), _MANY)]
    wrong += [
        f"attributes.custom.{name}" for name in _REMOVALS if isinstance(custom.get(name), _MANY)
    ]
    for name in wrong:
        kind = name.rpartition(".")[2]
        yield (
            f"{kind} stands under {name}, where Insider writes an attribute of that name and"
            " removes nothing; for /api/user/v1/attribute/delete it belongs to the user, as"
            f" custom.{kind}."
        )
    if (wrong or _has_removals(user)) and user.get("events"):
        yield (
            "events stand in a body that removes something: /api/user/v1/attribute/delete takes"
            " none; send the event by a second trigger to /api/user/v1/upsert, with"
            " insider/exit-event.jsonnet."
        )


def _has_removals(user: Mapping[str, Any]) -> bool:
    custom = _object(user.get("custom"))
    return any(name in part for part in (user, custom) for name in _REMOVALS)


def _deleted(parts: Mapping[str, Any]) -> list[str]:
    return [*_texts(parts.get("whole", [])), *_object(parts.get("partial"))]


_INSIDER: Final = "insider"
_EACH: Final = "…"
MOST_ATTRIBUTES: Final = 80
"""The most custom attributes that an account may have, by Insider's documentation."""


@dataclass(frozen=True, slots=True)
class _Keeper:
    """A trigger that writes to the list of audiences, or takes out of it.

    Args:
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
        rendered = [trigger for trigger in triggers if trigger.name in bodies]
        entering = _keepers(rendered, bodies, "enter")
        leaving = _keepers(triggers, bodies, "exit")
        for keeper in entering:
            yield from _no_way_out(keeper, leaving)
            yield from _other_people(keeper, leaving, bodies)
        yield from _flags_that_are_one([*entering, *leaving])


def _keepers(triggers: Sequence[Trigger], bodies: Mapping[str, Any], on: str) -> list[_Keeper]:
    return [
        _Keeper(trigger, attribute)
        for trigger in triggers
        if trigger.on == on and (attribute := _kept(trigger, bodies.get(trigger.name)))
    ]


def _kept(trigger: Trigger, body: Any) -> str:
    attribute = list_of(trigger, body)
    if body is None:
        return attribute
    does = adds_to if trigger.on == "enter" else takes_from
    if attribute and does(body, attribute):
        return attribute
    prefix = trigger.audience_flag_prefix
    return prefix + _EACH if sets_flag(body, prefix, to=trigger.on == "enter") else ""


def _other_people(
    entering: _Keeper, leaving: Sequence[_Keeper], bodies: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield exits that may mean another person than the entrance: an identifier differs.

    Samples of different people differ in their email, too, and are not compared.
    """
    entered = identifiers_of(bodies.get(entering.trigger.name))
    for keeper in leaving:
        if keeper.attribute != entering.attribute:
            continue
        left = identifiers_of(bodies.get(keeper.trigger.name))
        if not left.get("email") or left.get("email") != entered.get("email"):
            continue
        # A sample may lack the field: an identifier that is empty in one body tells nothing.
        other = sorted(
            name
            for name in left.keys() & entered.keys()
            if left[name] != entered[name] and left[name] and entered[name]
        )
        if other:
            yield Finding(
                "warning",
                f"{keeper.trigger.template} takes {', '.join(other)} from another field than"
                f" {entering.trigger.template} of {entering.trigger.name}: the exit may mean"
                " another person than the entrance; identify people in one way in all templates,"
                " as insider.identifiers does.",
                keeper.trigger.name,
            )


def _flags_that_are_one(keepers: Sequence[_Keeper]) -> Iterator[Finding]:
    """Yield findings about audiences that share an attribute, and about too many attributes."""
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
    if len(slugs) > MOST_ATTRIBUTES:
        yield Finding(
            "warning",
            f"{len(slugs)} audiences have an attribute each; an account of Insider has"
            f" {MOST_ATTRIBUTES}: let a list hold the audiences (insider/enter.jsonnet).",
        )


def _unused_setting(trigger: Trigger, body: Any) -> Iterator[Finding]:
    attribute = str(trigger.settings[AUDIENCE_ATTRIBUTE])
    if attribute == DEFAULT_AUDIENCE_ATTRIBUTE or body is None:
        return
    other = DEFAULT_AUDIENCE_ATTRIBUTE
    if not list_of(trigger, body) and (adds_to(body, other) or takes_from(body, other)):
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
            yield _other_list(entering, exits[0], audience)
        elif not exits and not _may_be_meant(audience, leaving):
            without.append("any audience" if audience == ALL_AUDIENCES else audience)
    if without:
        yield Finding(
            "warning",
            f"nothing takes {', '.join(without)} out of {entering.attribute} again: there is no"
            f" trigger on exit for it that does; add one with {entering.way_out}.",
            entering.trigger.name,
        )


def _other_list(entering: _Keeper, leaving: _Keeper, audience: str) -> Finding:
    setting = AUDIENCE_FLAG_PREFIX if entering.attribute.endswith(_EACH) else AUDIENCE_ATTRIBUTE
    return Finding(
        "warning",
        f"it adds {audience} to {entering.attribute}, but {leaving.trigger.name} takes it out of"
        f" {leaving.attribute}: nobody would ever leave; give both the same"
        f" {setting}, or the exit {entering.way_out}.",
        entering.trigger.name,
    )


def _may_be_meant(audience: str, leaving: Sequence[_Keeper]) -> bool:
    """Say whether an exit may mean this audience: one names it by id, the other by slug."""
    is_id = AUDIENCE_ID_PATTERN.fullmatch(audience) is not None
    return any(
        (AUDIENCE_ID_PATTERN.fullmatch(other) is not None) != is_id
        and ALL_AUDIENCES not in (audience, other)
        for keeper in leaving
        for other in keeper.trigger.audiences
    )

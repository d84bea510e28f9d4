"""Checks that the triggers of a destination fit together: each list has a way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from worker.checks.bodies import adds_to, identifiers_of, sets_flag, takes_from
from worker.checks.finding import Finding
from worker.contract.settings import (
    ALL_AUDIENCES,
    AUDIENCE_ATTRIBUTE,
    AUDIENCE_FLAG_PREFIX,
    DEFAULT_AUDIENCE_ATTRIBUTE,
    Settings,
    Trigger,
)
from worker.contract.words import AUDIENCE_ID_PATTERN
from worker.destinations.insider.memberships import flag_name
from worker.destinations.insider.shape import deletes

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
        other = sorted(name for name in left.keys() & entered.keys() if left[name] != entered[name])
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
    return Finding(
        "warning",
        f"it adds {audience} to {entering.attribute}, but {leaving.trigger.name} takes it out of"
        f" {leaving.attribute}: nobody would ever leave; give both the same"
        f" {_setting(entering)}, or the exit {entering.way_out}.",
        entering.trigger.name,
    )


def _setting(keeper: _Keeper) -> str:
    return AUDIENCE_FLAG_PREFIX if keeper.attribute.endswith(_EACH) else AUDIENCE_ATTRIBUTE


def _may_be_meant(audience: str, leaving: Sequence[_Keeper]) -> bool:
    """Say whether an exit may mean this audience: one names it by id, the other by slug."""
    is_id = AUDIENCE_ID_PATTERN.fullmatch(audience) is not None
    return any(
        (AUDIENCE_ID_PATTERN.fullmatch(other) is not None) != is_id
        and ALL_AUDIENCES not in (audience, other)
        for keeper in leaving
        for other in keeper.trigger.audiences
    )

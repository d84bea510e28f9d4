"""Corrects in bodies, right before sending, what newer events have made untrue.

What a body says about the list of audiences, and what becomes of it:

- **It overwrites the list.** What something newer entered is in, what something newer exited is
  out, the event's own slug is in or out by its direction. Where that leaves nothing, `[]` is sent:
  whether Insider empties an attribute for it is not documented, but leaving the list out would
  surely leave the exited audience in. (`attribute/delete` is the documented way for exits.)
- **It appends.** What something newer exited is not added again.
- **It removes** (attribute delete). What something newer entered is not removed.
- **It has a boolean attribute for the event's audience.** The ledger has let the event pass, so it
  is the newest of its audience, and the attribute is sent, whatever else is stale.

Profile data that is older than what this template already sent is left out; opt-ins, if any
template did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.words import Direction, Skip
from segrelay.worker.core.ledger import Knowledge
from segrelay.worker.destinations.api import NotSendable, Shaped, ShapingRules
from segrelay.worker.destinations.insider.fields import OBJECT_ATTRIBUTES, OPT_INS
from segrelay.worker.destinations.insider.shape import TELLING, deletes, overwrites

STALE_ATTRIBUTES: Final = "stale_attributes"
STALE_OPT_INS: Final = "stale_opt_ins"


def correct(
    shaped: Shaped, header: Header, rules: ShapingRules, knowledge: Knowledge
) -> Shaped | NotSendable:
    """Return a shaped body corrected by newer events. The body given is not changed."""
    given, root, known, url = shaped
    dropped = list(known)
    is_removal = deletes(rules.url)
    left: list[dict[str, Any]] = []
    is_as_given = True
    for user in given:
        right = (
            _corrected_removal(user, header, rules, knowledge)
            if is_removal
            else _corrected(user, root, header, rules, knowledge=knowledge, dropped=dropped)
        )
        is_as_given = is_as_given and right is user
        if right is not None:
            left.append(right)
    if not left:
        return NotSendable(Skip.EMPTY, "nothing was left that is still true")
    options = _without_objects(root, knowledge, dropped)
    if is_as_given and options is root:
        return shaped
    return Shaped(tuple(left), options, tuple(dropped), url)


def _without_objects(
    holder: Mapping[str, Any], knowledge: Knowledge, dropped: list[str]
) -> Mapping[str, Any]:
    """Leave out object attributes, of a user or of the whole body, that newer data has replaced."""
    if not knowledge.stale or OBJECT_ATTRIBUTES not in holder:
        return holder
    dropped.append(STALE_ATTRIBUTES)
    return {name: value for name, value in holder.items() if name != OBJECT_ATTRIBUTES}


def _corrected(
    user: dict[str, Any],
    root: Mapping[str, Any],
    header: Header,
    rules: ShapingRules,
    *,
    knowledge: Knowledge,
    dropped: list[str],
) -> dict[str, Any] | None:
    if OBJECT_ATTRIBUTES in user:
        user = dict(_without_objects(user, knowledge, dropped))
    given = user.get("attributes", {})
    attributes = _fresh(given, header, rules, knowledge, dropped)
    slugs = _list(attributes, rules.audience_attribute)
    if slugs is not None:
        right = _right_list(slugs, header, knowledge, whole=overwrites(user, root))
        attributes = (
            attributes
            if right == slugs
            else _with_list(attributes, rules.audience_attribute, right)
        )
    if attributes is given and not user.keys().isdisjoint(TELLING):
        return user
    return _with_attributes(user, attributes)


def _fresh(
    attributes: dict[str, Any],
    header: Header,
    rules: ShapingRules,
    knowledge: Knowledge,
    dropped: list[str],
) -> dict[str, Any]:
    """Leave out the attributes that newer data of the same person has replaced."""
    if knowledge.stale:
        told = memberships_of(attributes, header, rules)
        kept = {"custom": told} if told else {}
        if kept != attributes:
            dropped.append(STALE_ATTRIBUTES)
        return kept
    if knowledge.stale_opt_ins and not attributes.keys().isdisjoint(OPT_INS):
        dropped.append(STALE_OPT_INS)
        return {name: value for name, value in attributes.items() if name not in OPT_INS}
    return attributes


def memberships_of(
    attributes: Mapping[str, Any], header: Header, rules: ShapingRules
) -> dict[str, Any]:
    """Return the custom attributes that tell of audiences, and not of the person."""
    custom = attributes.get("custom", {})
    told = flag_of(custom, header, rules)
    slugs = custom.get(rules.audience_attribute)
    if slugs is not None:
        told[rules.audience_attribute] = slugs
    return told


def tells_data(user: Any, header: Header, rules: ShapingRules) -> bool:
    """Say whether a user object holds data of the person beside memberships and events."""
    attributes = user.get("attributes") if isinstance(user, dict) else None
    if not isinstance(attributes, dict) or not attributes:
        return False
    custom = attributes.get("custom")
    if len(attributes) > 1 or not isinstance(custom, dict):
        return True
    return custom.keys() != memberships_of(attributes, header, rules).keys()


def _list(attributes: dict[str, Any], attribute: str) -> list[Any] | None:
    slugs = attributes.get("custom", {}).get(attribute)
    return slugs if type(slugs) is list else None


def _right_list(
    slugs: list[Any], header: Header, knowledge: Knowledge, *, whole: bool
) -> list[Any] | None:
    """Return the list of audiences as it should be sent; None where there is nothing to append."""
    kept = _without(slugs, _outside(header, knowledge))
    if not whole:
        return kept or None
    inside = sorted(knowledge.inside)
    if header.direction is Direction.ENTER:
        inside.append(header.audience)
    return kept + [slug for slug in inside if slug not in kept]


def _without(slugs: list[Any], gone: frozenset[str]) -> list[Any]:
    return [slug for slug in slugs if type(slug) is not str or slug not in gone] if gone else slugs


def _outside(header: Header, knowledge: Knowledge) -> frozenset[str]:
    if header.direction is Direction.EXIT:
        return knowledge.outside | {header.audience}
    return knowledge.outside


def _with_list(
    attributes: dict[str, Any], attribute: str, slugs: list[Any] | None
) -> dict[str, Any]:
    """Return the attributes with this list of audiences; None leaves the list out."""
    custom = dict(attributes.get("custom", {}))
    if slugs is None:
        custom.pop(attribute, None)
    else:
        custom[attribute] = slugs
    changed = {name: value for name, value in attributes.items() if name != "custom"}
    return {**changed, "custom": custom} if custom else changed


def _with_attributes(user: dict[str, Any], attributes: dict[str, Any]) -> dict[str, Any] | None:
    """Return the user with these attributes, or None if nothing is left to tell."""
    changed = {key: value for key, value in user.items() if key != "attributes"}
    if attributes:
        return {**changed, "attributes": attributes}
    return None if changed.keys().isdisjoint(TELLING) else changed


def _corrected_removal(
    user: dict[str, Any], header: Header, rules: ShapingRules, knowledge: Knowledge
) -> dict[str, Any] | None:
    partial = user.get("custom", {}).get("partial", {})
    slugs = partial.get(rules.audience_attribute)
    if slugs is None:
        return user
    still_in = knowledge.inside
    if header.direction is Direction.ENTER:
        still_in = still_in | {header.audience}
    kept = _without(slugs, still_in)
    if len(kept) == len(slugs):
        return user
    return _without_removals(user, rules.audience_attribute, kept)


def _without_removals(
    user: dict[str, Any], attribute: str, kept: list[Any]
) -> dict[str, Any] | None:
    custom = user["custom"]
    partial = {name: values for name, values in custom["partial"].items() if name != attribute}
    if kept:
        partial[attribute] = kept
    rest = {name: value for name, value in custom.items() if name != "partial"}
    changed = {key: value for key, value in user.items() if key != "custom"}
    if partial or rest:
        changed["custom"] = {**rest, "partial": partial} if partial else rest
    return changed if changed.keys() & {"whole", "partial", "custom"} else None


_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_]")
_CAPITALS: Final = {
    ord(dead_letter): dead_letter.lower() for dead_letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
}


@lru_cache(maxsize=1_024)
def flag_name(prefix: str, slug: str) -> str:
    """Return the name of an audience's attribute; characters that no name may hold become `_`."""
    return prefix + _NOT_IN_A_NAME.sub("_", slug.translate(_CAPITALS))


def flag_of(custom: Mapping[str, Any], header: Header, rules: ShapingRules) -> dict[str, Any]:
    """Return what custom attributes say of the event's own audience; empty if nothing."""
    name = flag_name(rules.audience_flag_prefix, header.audience)
    value = custom.get(name)
    return {name: value} if type(value) is bool else {}

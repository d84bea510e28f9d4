"""Unites user objects of one person into one that tells Insider the same as all of them in a row.

Uniting works where a later object only adds to an earlier one, or replaces single values of it:

- **upsert**: an attribute has its newest value; lists, which Insider appends, are united; events
  follow each other. An object that overwrites lists or holds actions for objects goes by itself.
- **attribute delete**: whole attributes and single values of lists are united, name by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from worker.destinations.insider.fields import OBJECT_ATTRIBUTES
from worker.destinations.insider.shape import overwrites

_SAME: Final = ("identifiers", "insider_id", "append", "not_append")
"""Keys that must be equal in united user objects: who the person is, how lists are written."""
_UPSERT: Final = frozenset({*_SAME, "attributes", "events"})
_DELETE: Final = frozenset({*_SAME, "whole", "partial", "custom"})


def unite(users: Sequence[Mapping[str, Any]], root: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return one user object for several of one person, or None where they can't share one.

    Args:
        users: Valid objects of one path, the oldest event's first. They are not changed.
        root: The options of the request.
    """
    first = users[0]
    if OBJECT_ATTRIBUTES in root or not all(_can_share(user, first, root) for user in users):
        return None
    united = {key: first[key] for key in _SAME if key in first}
    if any(user.keys() & {"attributes", "events"} for user in users):
        return united | _united_upserts(users)
    return united | _united_removals(users)


def _can_share(user: Mapping[str, Any], first: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    if not (user.keys() <= _UPSERT or user.keys() <= _DELETE) or overwrites(user, root):
        return False
    return all(user.get(key) == first.get(key) for key in _SAME)


def _united_upserts(users: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    united: dict[str, Any] = {}
    told = [user["attributes"] for user in users if "attributes" in user]
    if told:
        united["attributes"] = _newest_values(told)
        custom = [attributes["custom"] for attributes in told if "custom" in attributes]
        if custom:
            united["attributes"]["custom"] = _newest_values(custom)
    events = [event for user in users for event in user.get("events", ())]
    if events:
        united["events"] = events
    return united


def _united_removals(users: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    united = _removed(users)
    custom = [user["custom"] for user in users if "custom" in user]
    if custom:
        united["custom"] = _removed(custom)
    return united


def _removed(holders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the united `whole` and `partial` of users, or of their custom attributes."""
    united: dict[str, Any] = {}
    whole = [holder["whole"] for holder in holders if "whole" in holder]
    if whole:
        united["whole"] = _united_list(whole)
    partial = [holder["partial"] for holder in holders if "partial" in holder]
    if partial:
        united["partial"] = _newest_values(partial)
    return united


def _newest_values(holders: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return each value as the newest holder has it; lists are united over all holders."""
    values: dict[str, Any] = {}
    lists: dict[str, list[list[Any]]] = {}
    for holder in holders:
        values.update(holder)
        for name, value in holder.items():
            if type(value) is list:
                lists.setdefault(name, []).append(value)
    for name, each in lists.items():
        if len(each) > 1 and type(values[name]) is list:
            values[name] = _united_list(each)
    return values


def _united_list(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the different values of lists in their order; 1, 1.0 and true are different."""
    return list({orjson.dumps(value): value for each in lists for value in each}.values())

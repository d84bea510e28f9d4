"""The content of an attribute delete: whole attributes, or single values of lists.

Default attributes stand beside the identifiers, custom ones below `custom`.
"""

from __future__ import annotations

from typing import Any, Final

from worker.destinations.insider.fields import DEFAULT_ATTRIBUTES, PHONE
from worker.destinations.normalise import is_empty, pruned

_PARTS: Final = frozenset({"whole", "partial"})
_DEFAULT_NAMES: Final = frozenset({*DEFAULT_ATTRIBUTES, PHONE})


def removals(user: dict[str, Any], dropped: list[str]) -> dict[str, Any]:
    """Return `whole`, `partial` and `custom` of a user, as far as they are valid."""
    right = _parts(user, "", dropped, known=_DEFAULT_NAMES)
    custom = user.get("custom")
    if type(custom) is dict:
        if found := _parts(custom, "custom.", dropped, known=None):
            right["custom"] = found
        ignored = sorted(custom.keys() - _PARTS)
        dropped += [f"custom.{name}" for name in ignored if not is_empty(custom[name])]
    elif not is_empty(custom):
        dropped.append("custom")
    return right


def _parts(
    given: dict[str, Any], prefix: str, dropped: list[str], *, known: frozenset[str] | None
) -> dict[str, Any]:
    """Return `whole` and `partial`, with the names that may stand there."""
    right: dict[str, Any] = {}
    whole = _names(given.get("whole"), f"{prefix}whole", dropped, known)
    if whole:
        right["whole"] = whole
    partial = given.get("partial")
    if type(partial) is dict:
        if kept := _partial(partial, f"{prefix}partial", dropped, known):
            right["partial"] = kept
    elif not is_empty(partial):
        dropped.append(f"{prefix}partial")
    return right


def _names(given: Any, place: str, dropped: list[str], known: frozenset[str] | None) -> list[str]:
    if is_empty(given):
        return []
    if type(given) is not list:
        dropped.append(place)
        return []
    wanted = [name for name in given if not is_empty(name)]
    right = [name for name in wanted if type(name) is str and (known is None or name in known)]
    dropped += [place] * (len(wanted) - len(right))
    return right


def _partial(
    given: dict[str, Any], place: str, dropped: list[str], known: frozenset[str] | None
) -> dict[str, list[Any]]:
    right = {}
    for name, values in given.items():
        left = pruned(values)
        if left is None:
            continue
        if type(left) is dict or (known is not None and name not in known):
            dropped.append(f"{place}.{name}")
        else:
            right[name] = left if type(left) is list else [left]
    return right

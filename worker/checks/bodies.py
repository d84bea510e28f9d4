"""Checks of a rendered body: how it changes a person's list of audiences at Insider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from worker.destinations.insider.shape import overwrites

_MEMBERSHIPS: Final = ("_segments", "segments_all", "segments")
"""The fields of a profile that list its audiences, by Lytics' documentation."""
_IDENTIFIERS: Final = frozenset({"email", "phone_number", "uuid"})
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
    seen: set[str] = set()
    for message in _all(body, attribute, profile):
        if message not in seen:
            seen.add(message)
            yield message


def misplaced_of(body: object) -> Iterator[str]:
    """Yield problems of a body that puts something where no path of Insider's looks for it."""
    for user in users_of(body):
        yield from _of_misplaced(user)


def _all(body: object, attribute: str, profile: Mapping[str, Any]) -> Iterator[str]:
    root = _object(body)
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

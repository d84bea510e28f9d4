"""Insider's user API: up to a thousand users in one request, answered for each of them.

User objects of one person are united into one that tells Insider the same as all of them in a row.
That works where a later object only adds to an earlier one, or replaces single values of it:

- **upsert**: an attribute has its newest value; lists, which Insider appends, are united; events
  follow each other. An object that overwrites lists or holds actions for objects goes by itself.
- **attribute delete**: whole attributes and single values of lists are united, name by name.

What an answer says of each user follows Insider's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from segrelay.worker.contract.events import Header
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    SlowDown,
    TooLarge,
    Unreadable,
    Verdict,
)
from segrelay.worker.destinations.api import (
    Answer,
    Api,
    Shaped,
    ShapingRules,
    classify_status,
    parsed,
    retry_after_seconds,
)
from segrelay.worker.destinations.insider import shape as insider_shape
from segrelay.worker.destinations.insider.shape import deletes, overwrites
from segrelay.worker.destinations.normalise import OBJECT_ATTRIBUTES

_SAME: Final = ("identifiers", "insider_id", "append", "not_append")
"""Keys that must be equal in united user objects: who the person is, how lists are written."""
_UPSERT: Final = frozenset({*_SAME, "attributes", "events"})
_DELETE: Final = frozenset({*_SAME, "whole", "partial", "custom"})


def _can_share(user: Mapping[str, Any], first: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    if not (user.keys() <= _UPSERT or user.keys() <= _DELETE) or overwrites(user, root):
        return False
    return all(user.get(key) == first.get(key) for key in _SAME)


_Nested = Mapping[str, Any]
_NESTED: Final[_Nested] = {
    "attributes": {"custom": {}},
    "partial": {},
    "custom": {"partial": {}},
}
"""The objects of a user that are united name by name, each with those in it."""


def _united(holders: Sequence[Mapping[str, Any]], nested: _Nested) -> dict[str, Any]:
    """Return each value as the newest holder has it; lists are united over all holders."""
    united: dict[str, Any] = {}
    for name in dict.fromkeys(name for holder in holders for name in holder):
        values = [holder[name] for holder in holders if name in holder]
        lists = [value for value in values if type(value) is list]
        if name in nested:
            united[name] = _united(values, nested[name])
        elif name == "events" and nested is _NESTED:
            united[name] = [event for events in lists for event in events]
        elif len(lists) > 1 and type(values[-1]) is list:
            united[name] = _united_list(lists)
        else:
            united[name] = values[-1]
    return united


def _united_list(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the different values of lists in their order; 1, 1.0 and true are different."""
    return list({orjson.dumps(value): value for each in lists for value in each}.values())


_FORBIDDEN: Final = 403
_ACCESS_STATUSES: Final = frozenset({400, 401, 403})
_PERSON_STATUSES: Final = frozenset({400, 404, 422})
_SUCCESS: Final = range(200, 300)
_ERROR_KEY: Final = re.compile(r"users\.([0-9]{1,9})(?:\.(.*))?", re.DOTALL)
_TOO_MANY: Final = re.compile(r"request limit exceeded|too many (?:attempts|requests)")
_OVERSIZED: Final = "bigger than maximum allowed size"
_NO_ACCESS: Final = ("partner is invalid", "access denied", "invalid api key")
_NOT_KNOWN: Final = re.compile(
    r"no such user|unknown user|user (?:was |is )?not (?:found|known)|user does(?: not|n't) exist",
    re.IGNORECASE,
)
_ABOUT_A_FIELD: Final = re.compile(
    r"\b(?:attributes?|propert(?:y|ies)|fields?|columns?|parameters?)\b", re.IGNORECASE
)
_READ_BYTES: Final = 4_096


def _says_unknown(text: str) -> bool:
    """Say whether an error means an unknown person; "unknown user attribute" does not."""
    return bool(_NOT_KNOWN.search(text)) and not _ABOUT_A_FIELD.search(text)


def _with_status(status: int, said: str) -> str:
    return f"{status}: {normalise_message(said)}" if said else str(status)


def _said(document: Any) -> str:
    """Return the text of Insider's two error shapes: `error`, or `message` beside `success`."""
    if type(document) is not dict:
        return ""
    for key in ("error", "message"):
        if type(document.get(key)) is str:
            return str(document[key])
    return ""


def _is_denial(document: Any) -> bool:
    """Say whether a 403 comes from Insider itself, not from something in front of it."""
    return (
        type(document) is dict
        and document.get("success") is False
        and type(document.get("message")) is str
    )


def _classify_success(answer: Answer, *, users: int, url: str) -> Verdict:
    if answer.truncated:
        return Unreadable(f"{answer.status}: the body was cut")
    document = parsed(answer.body)
    if document == {} and deletes(url):
        return Accepted()
    counts = _counts(document)
    if counts is None:
        return Unreadable(f"{answer.status}: the body has another shape than known")
    return _add_up(*counts, users=users, url=url, status=answer.status)


def _counts(document: Any) -> tuple[int, int, Mapping[str, Any]] | None:
    """Return `successful`, `fail` and the errors, or None for another shape."""
    sides = document.get("data") if type(document) is dict else None
    if type(sides) is not dict or not sides.keys() & {"successful", "fail"}:
        return None
    successful, fail = sides.get("successful", {}), sides.get("fail", {})
    if type(successful) is not dict or type(fail) is not dict:
        return None
    went, failed, errors = successful.get("count", 0), fail.get("count", 0), fail.get("errors", {})
    if type(errors) is not dict or type(went) is not int or type(failed) is not int:
        return None
    return (went, failed, errors) if went >= 0 and failed >= 0 else None


def _add_up(
    went: int, failed: int, errors: Mapping[str, Any], *, users: int, url: str, status: int
) -> Verdict:
    """Name the refused users, if the counts leave no doubt about the others.

    Whether `fail.count` counts users or errors is unknown: either may make the sum right. Where
    it says that more failed than `errors` has entries, somebody failed who is not named.
    """
    by_user = _by_user(errors)
    if by_user is None or any(index >= users for index in by_user):
        return Unreadable(f"{status}: an error names no user that was sent")
    entries = sum(len(value) if type(value) is list else 1 for value in errors.values())
    all_named = failed <= entries
    if went + len(by_user) != users and not (went + failed == users and all_named):
        return Unreadable(f"{status}: the counts do not add up to the users sent")
    return Accepted(
        {
            index: normalise_message("; ".join(sorted(problems)))
            for index, problems in by_user.items()
            if not (deletes(url) and all(map(_says_unknown, problems)))
        }
    )


def _by_user(errors: Mapping[str, Any]) -> dict[int, list[str]] | None:
    """Group errors by the user's index, with which each key begins; None if a key does not."""
    by_user: dict[int, list[str]] = {}
    for key, value in errors.items():
        found = _ERROR_KEY.fullmatch(key)
        if found is None:
            return None
        by_user.setdefault(int(found[1]), []).append(f"{found[2] or ''}: {_as_text(value)}")
    return by_user


def _as_text(value: Any) -> str:
    """Return an error's text up to a colon, behind which the value itself may stand."""
    if type(value) is list:
        return ", ".join(_as_text(item) for item in value)
    return value.partition(": ")[0] if type(value) is str else ""


MAX_BYTES: Final = 5_000_000


CUSTOM: Final = "c_"
"""The prefix of custom attributes in the reading API (Insider's documentation)."""


@dataclass(frozen=True, slots=True)
class InsiderApi(Api):
    """Upsert and attribute delete, as Insider documents them.

    Args:
        unites: True if deliveries of one person may share a user object.
    """

    max_users: int = insider_shape.MAX_USERS
    max_bytes: int = MAX_BYTES
    method: str = "POST"
    networks: tuple[str, ...] | None = None
    unites: bool = True

    shape = staticmethod(insider_shape.shape)
    correct = staticmethod(insider_shape.correct)

    def unite(
        self, users: Sequence[dict[str, Any]], root: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Combine user objects of one person into one, where they only add to each other."""
        if not self.unites or OBJECT_ATTRIBUTES in root:
            return None
        can_share = all(_can_share(user, users[0], root) for user in users)
        return _united(users, _NESTED) if can_share else None

    def assemble(self, users: Sequence[bytes], root: Mapping[str, Any]) -> bytes:
        """Combine users into one body, with their common root options."""
        options = b"," + orjson.dumps(dict(root))[1:-1] if root else b""
        return b"".join((b'{"users":[', b",".join(users), b"]", options, b"}"))

    def classify(self, answer: Answer, bodies: Sequence[bytes], url: str) -> Verdict:
        """Say what an answer means for each user."""
        users = len(bodies)
        if answer.status in _SUCCESS:
            return _classify_success(answer, users=users, url=url)
        document = parsed(answer.body)
        said = _said(document)
        lowered = said.lower()
        begin = answer.body[:_READ_BYTES].decode(errors="replace").lower()
        if answer.status == _FORBIDDEN and _TOO_MANY.search(begin):
            return SlowDown(retry_after_seconds(answer.retry_after))
        if answer.status in _ACCESS_STATUSES and any(text in lowered for text in _NO_ACCESS):
            return AccessRefused(f"{answer.status}: {normalise_message(said)}")
        if answer.status == _FORBIDDEN and not _is_denial(document):
            return BodyRefused(_with_status(answer.status, said))
        if answer.status in _PERSON_STATUSES and _OVERSIZED in lowered:
            return TooLarge(_with_status(answer.status, said))
        if answer.status in _PERSON_STATUSES and deletes(url) and _says_unknown(said):
            # Of one person it says that there is nothing to take away; of several, not of whom.
            return Accepted() if users == 1 else BodyRefused(_with_status(answer.status, said))
        return classify_status(answer, normalise_message(said))

    def tells_data(self, shaped: Shaped, header: Header, rules: ShapingRules) -> bool:
        """Say whether a body holds data of the person beside memberships and events."""
        return any(insider_shape.tells_data(user, header, rules) for user in shaped.users)

    def overwrites(self, shaped: Shaped) -> bool:
        """Say whether a list in a body replaces the one that Insider holds."""
        return any(overwrites(user, shaped.root) for user in shaped.users)

    def known_by(self, shaped: Shaped) -> Mapping[str, Any]:
        """Return the identifiers of the person as they were sent."""
        user = shaped.users[0]
        return {key: user[key] for key in ("identifiers", "insider_id") if key in user}

    def identifiers(self, user: Mapping[str, Any]) -> Collection[str]:
        """Return `kind:value` of each identifier: users that share one are one person there."""
        return [f"{kind}:{value}" for kind, value in _identifiers(user)]


def identifies(body: Any, identity_value: str) -> bool:
    """Say whether a rendered body sends this value as an identifier."""
    users = body.get("users") if isinstance(body, dict) else None
    wanted = identity_value.strip().casefold()
    return any(
        str(value).strip().casefold() == wanted
        for user in (users if isinstance(users, list) else [])
        if isinstance(user, dict)
        for _, value in _identifiers(user)
    )


def _identifiers(user: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = [("insider_id", user["insider_id"])] if "insider_id" in user else []
    given = user.get("identifiers")
    for kind, value in given.items() if isinstance(given, dict) else ():
        if kind == "custom" and isinstance(value, dict):
            found += [(f"custom.{name}", text) for name, text in value.items()]
        else:
            found.append((kind, value))
    return found

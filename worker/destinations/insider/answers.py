"""Reads Insider's answers: what became of each user. Facts from Insider's documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from segrelay.worker.core.compact import parsed
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
from segrelay.worker.destinations.api import Answer, classify_status, retry_after_seconds
from segrelay.worker.destinations.insider.shape import deletes

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


def classify(answer: Answer, *, users: int, url: str) -> Verdict:
    """Return the meaning of an answer to a request with a number of users."""
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

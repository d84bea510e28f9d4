"""Reads from a successful answer which results are refused.

The configuration may describe where an answer tells it. Without a description, an answer that
lists errors is never taken for one that says yes to everything: who is refused is found by halving,
unless each error names one person of the request by the identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from worker.contract.keys import digest_of, identity_text
from worker.contract.settings.http import Failures
from worker.core.compact import parsed
from worker.core.messages import normalise_message
from worker.core.verdicts import Accepted, BodyRefused, Unreadable, Verdict
from worker.destinations.api import Answer

_SUCCESS: Final = range(200, 300)
_POSITION_DIGITS: Final = 9
_STEP: Final = re.compile(r"\[[0-9]+\]|[^.\[\]]+")
_USUAL: Final = (
    "message", "error", "error.message", "error_description", "detail", "errors[].detail",
    "errors[].message", "errors[].error", "errors[]", "title",
)  # fmt: skip
_LONGEST_TEXT: Final = 300
_NO_TEXT: Final = ("", "<")

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_FAILURES: Final = (
    "error errors fail fails failed failure failures invalid rejected refused unprocessed"
)
_FAILURE_WORDS: Final = frozenset(_FAILURES.split())
_COUNTED: Final = (
    "contact contacts count detail details email emails event events has id ids item items list"
    " members message messages num number of partial profile profiles put record records result"
    " results rows total update updates user users"
)
_FAILURE_KEY_WORDS: Final = _FAILURE_WORDS.union(_COUNTED.split())
"""The words in the names of keys such as `failedUpdates`; `failed_payments` may be a person's."""
_SUCCESS_WORDS: Final = frozenset({"ok", "success", "succeeded", "successful"})
_LEVELS: Final = 2
"""The most objects and lists around a list of errors; what lies deeper may be people's data."""

RefusedResults = Mapping[int, str]


class SentResults(NamedTuple):
    """The results of a request, in their order.

    Attributes:
        number: How many they are.
        identity: The profile's field by which an answer may name people; "" = none.
        people: For each, the digest of the profile that it is about.
    """

    number: int
    identity: str = ""
    people: Sequence[bytes] = ()


def is_status(status: int, listed: Sequence[str]) -> bool:
    """Say whether a status is listed, as `404` or as one of `4xx`."""
    return str(status) in listed or f"{status // 100}xx" in listed


def taken(answer: Answer, failures: Failures | None, sent: SentResults) -> Verdict:
    """Say what an answer means whose status means yes.

    Args:
        answer: The answer.
        failures: How it tells which results it refuses; None = that is not known.
        sent: What the request carried.
    """
    document = None if answer.truncated else parsed(answer.body)
    if failures is None:
        return _undescribed(answer, document, sent)
    if answer.truncated:
        return Unreadable(f"{answer.status}: the answer was cut")
    found = _at(document, failures.at)
    if failures.field:
        refused = _in_order(found, failures, sent.number)
        if isinstance(refused, str):
            return Unreadable(f"{answer.status}: {refused}")
        return Accepted(refused)
    if document is None:
        return Unreadable(f"{answer.status}: the answer is no object or list")
    if found is None:
        return _undescribed(answer, document, sent)
    by_position = _by_position(found, failures, sent.number)
    if by_position is not None:
        return Accepted(by_position)
    if _is_empty(found):
        return Accepted()
    return _refused_by_name(answer, [(failures.at, found)], sent, failures)


def _undescribed(answer: Answer, document: Any, sent: SentResults) -> Verdict:
    """Say what an answer means that tells nothing where the configuration says, if it does."""
    # A status that the configuration counts as success may well come with an error's text.
    levels = _LEVELS if answer.status in _SUCCESS else -1
    told = list(_told_failures(document, levels))
    return _refused_by_name(answer, told, sent) if told else Accepted()


def _refused_by_name(
    answer: Answer,
    told: Sequence[tuple[str, Any]],
    sent: SentResults,
    failures: Failures | None = None,
) -> Verdict:
    """Refuse those whom failures name; where one names nobody, the body has to be halved."""
    refused = _by_name(told, sent, failures)
    if refused:
        return Accepted(refused)
    # A list says more than a number.
    key, found = next((one for one in told if isinstance(one[1], list | dict | str)), told[0])
    _, entry = next(_entries(key, found), (key, found))
    said = _said(entry) or said_by(answer, "")
    texts = [str(answer.status), key or "errors", *([said] if said else [])]
    return BodyRefused(": ".join(texts), partly_applied=sent.number > 1)


def _told_failures(value: Any, levels: int) -> Iterator[tuple[str, Any]]:
    """Yield what an answer that nobody described says of failures, each with its key."""
    if levels < 0:
        return
    if isinstance(value, list):
        for inner in value:
            yield from _told_failures(inner, levels - 1)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if inner is False and key.lower() in _SUCCESS_WORDS:
                yield f"{key} is false", True
            elif not _tells_of_failures(key):
                yield from _told_failures(inner, levels - 1)
            elif not _is_empty(inner):
                yield key, inner


@lru_cache(maxsize=1_024)
def _tells_of_failures(key: str) -> bool:
    """Say whether a key holds failures or their number, as `failedUpdates` or `error_count` do."""
    words = {word.lower() for word in _WORDS.findall(key)}
    return bool(words & _FAILURE_WORDS) and words <= _FAILURE_KEY_WORDS


def _is_empty(value: Any, levels: int = _LEVELS) -> bool:
    """Say whether there is nothing in a list, nor in the lists of an object: `{"invalid": []}`.

    A list with null for each result that was taken is empty, too.
    """
    if isinstance(value, dict) and levels:
        return all(_is_empty(inner, levels - 1) for inner in value.values())
    return all(each is None for each in value) if isinstance(value, list) else not value


def _entries(key: str, found: Any, levels: int = _LEVELS) -> Iterator[tuple[str, Any]]:
    """Yield single failures, and numbers of them, each with the key of the list or number."""
    if isinstance(found, list):
        # A number in a list is none of failures.
        yield from (
            (key, each if isinstance(each, dict | str) else [each])
            for each in found
            if each is not None
        )
    elif levels and isinstance(found, dict) and not _has_text(found):
        for name, inner in found.items():
            yield from _entries(name, inner, levels - 1)
    elif found:
        yield key, found


def _by_name(
    told: Sequence[tuple[str, Any]], sent: SentResults, failures: Failures | None = None
) -> RefusedResults | None:
    """Place failures that each name one person of the request; None = one does not.

    A number says how many failed: none may be missing.
    """
    position_of = {digest: at for at, digest in enumerate(sent.people)}
    refused: dict[int, str] = {}
    most = 0.0
    for key, entry in (each for one in told for each in _entries(*one)):
        if isinstance(entry, bool):
            continue
        if isinstance(entry, int | float):
            most = max(most, entry)
            continue
        digests = {_digest(text, sent.identity): text for text in (key, *_texts(entry))}
        named = position_of.keys() & digests
        if len(named) != 1:
            return None
        digest = named.pop()
        said = _at(entry, failures.message) if failures and failures.message else None
        said = said if isinstance(said, str) else _said(entry)
        is_name = digests[digest] == entry
        refused[position_of[digest]] = normalise_message(key if is_name else said or key)
    return refused if most <= len(refused) else None


def _digest(name: str, identity: str) -> bytes:
    """Return the digest of the profile that a text names by the identity."""
    return digest_of(f"{identity}:{identity_text(name, identity)}")


def _has_text(found: dict[str, Any]) -> bool:
    return any(isinstance(one, str) for one in found.values())


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts and keys in a value, however deep."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            left += [*each, *each.values()]
        elif isinstance(each, list):
            left += each
        elif isinstance(each, str):
            yield each


def _said(entry: Any) -> str:
    """Return the text of a single failure; "" where it has none."""
    return normalise_message(entry) if isinstance(entry, str) else _usual_text(entry, _USUAL)


def _by_position(found: Any, failures: Failures, results: int) -> RefusedResults | None:
    """Read entries with positions, or an object by positions; None = one has no right position."""
    refused: dict[int, str] = {}
    for position, entry in _positions(found, failures):
        if position is None or not 0 <= position < results:
            return None
        refused[position] = _message(entry, failures)
    return refused


def _in_order(found: Any, failures: Failures, results: int) -> RefusedResults | str:
    """Read a list with one entry for each result; the answer to a single one may be the entry."""
    entries = [found] if results == 1 and isinstance(found, dict) else found
    if not isinstance(entries, list) or len(entries) != results:
        return "it does not list one entry for each result that was sent"
    if not all(isinstance(entry, dict) for entry in entries):
        return "it lists other things than objects"
    return {
        position: _message(entry, failures)
        for position, entry in enumerate(entries)
        if not _has_succeeded(_at(entry, failures.field), failures.succeeded)
    }


def _has_succeeded(value: Any, succeeded: Sequence[Any]) -> bool:
    if not succeeded:
        return value in (None, False, "", [], {})
    listed = [text for text in succeeded if isinstance(text, str)]
    if type(value) is int and is_status(value, listed):
        return True
    # In Python 1 == True; in an answer they are two things.
    return any(value == wanted and type(value) is type(wanted) for wanted in succeeded)


def _positions(found: Any, failures: Failures) -> Iterator[tuple[int | None, Any]]:
    if isinstance(found, dict):
        yield from ((_position(key), entry) for key, entry in found.items())
    elif isinstance(found, list):
        yield from ((_position(_at(entry, failures.index)), entry) for entry in found)
    else:
        yield None, found


def _position(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) <= _POSITION_DIGITS:
        return int(value)
    return value if type(value) is int else None


def said_by(answer: Answer, reason: str) -> str:
    """Return why an answer refuses, in its own words; "" where it does not say.

    Args:
        answer: Of any status.
        reason: Where it stands; "" = in the usual places, where it is looked for in any case.
    """
    document = parsed(answer.body)
    if document is None:
        return _plain(answer.body)
    places = (reason, *_USUAL) if reason else _USUAL
    return _usual_text(document, places) or normalise_message(
        document if isinstance(document, str) else ""
    )


def _usual_text(document: Any, places: Sequence[str]) -> str:
    found = (text for place in places if isinstance(text := _at(document, place), str) and text)
    return normalise_message(next(found, ""))


def _plain(body: bytes) -> str:
    """Return the text of an answer that is short and no page, else ""."""
    text = body[:_LONGEST_TEXT].decode(errors="replace").strip()
    return "" if text[:1] in _NO_TEXT or len(body) >= _LONGEST_TEXT else normalise_message(text)


def _at(value: Any, path: str) -> Any:
    """Return what lies at keys and `[indexes]`, joined by dots; None where there is nothing.

    `[]` is the first entry of a list that has what follows.
    """
    if not path:
        return value
    before, _, behind = path.partition("[]")
    if behind or path.endswith("[]"):
        found = _at(value, before)
        entries = found if isinstance(found, list) else ()
        inner = (_at(entry, behind.removeprefix(".")) for entry in entries)
        return next((each for each in inner if each is not None), None)
    for step in _STEP.findall(path):
        value = _step(value, step)
    return value


def _step(value: Any, step: str) -> Any:
    if step.startswith("["):
        index = int(step[1:-1])
        return value[index] if isinstance(value, list) and index < len(value) else None
    return value.get(step) if isinstance(value, dict) else None


def _message(entry: Any, failures: Failures) -> str:
    said = _at(entry, failures.message) if failures.message else entry
    said = entry if said is None else said
    return normalise_message(said) if isinstance(said, str) else "refused"

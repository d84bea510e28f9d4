"""The results that an answer of any endpoint refuses, as far as the configuration describes it.

Without a description, an answer that lists errors is never taken for one that says yes to
everything: who is refused is found by halving.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from segrelay.worker.contract.settings.http import Failures
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.core.verdicts import Accepted, BodyRefused, Unreadable, Verdict
from segrelay.worker.destinations.api import Answer, parsed

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
_NOTHING: Final[tuple[Any, ...]] = (None, False, 0, "", "0", {})
_LEVELS: Final = 2
"""The most objects and lists around a list of errors; what lies deeper may be people's data."""

RefusedResults = Mapping[int, str]


def is_status(status: int, listed: Sequence[str]) -> bool:
    """Say whether a status is listed, as `404` or as one of `4xx`."""
    return str(status) in listed or f"{status // 100}xx" in listed


def taken(answer: Answer, failures: Failures | None, sent: Sequence[bytes]) -> Verdict:
    """Return the verdict on an answer whose status means success.

    Args:
        answer: The answer.
        failures: The configured form in which answers name refused results; None = it is not known.
        sent: The results that the request carried, each as JSON.
    """
    document = None if answer.truncated else parsed(answer.body)
    if failures is None:
        return _undescribed(answer, document, sent)
    if answer.truncated:
        return Unreadable(f"{answer.status}: the answer was cut")
    if document is None:
        return Unreadable(f"{answer.status}: the answer is no object or list")
    verdict = _described(answer, document, failures, sent)
    return _counted(verdict, answer, document, failures, sent) if failures.taken else verdict


def _described(answer: Answer, document: Any, failures: Failures, sent: Sequence[bytes]) -> Verdict:
    """Read the place of an answer that the configuration names."""
    found = _at(document, failures.at)
    is_described = failures.at or failures.of or not failures.taken
    if not failures.field and (found is None or not is_described):
        return _undescribed(answer, document, sent)
    refused = _refused(found, failures, sent)
    if refused is not None:
        return Accepted(refused)
    if not failures.field:
        return Accepted() if _is_empty(found) else _halved(answer, [(failures.at, found)], sent)
    # It is about all results in another way: that is no reason to stop the destination.
    told = list(_told_failures(document))
    if told:
        return _halved(answer, told, sent)
    return Unreadable(f"{answer.status}: it does not list one entry for each result that was sent")


def _counted(
    verdict: Verdict, answer: Answer, document: Any, failures: Failures, sent: Sequence[bytes]
) -> Verdict:
    """Return another verdict if an answer counts fewer taken results than it leaves unrefused."""
    if not isinstance(verdict, Accepted):
        return verdict
    found = _at(document, failures.taken)
    count = _number(found)
    if count is None and not verdict.refused:
        return Unreadable(f"{answer.status}: {failures.taken} is no number")
    if count is None or count + len(verdict.refused) >= len(sent):
        return verdict
    message = f"{answer.status}: {failures.taken} tells that not all were taken"
    return BodyRefused(message, partly_applied=len(sent) > 1 and count > 0)


def _number(found: Any) -> int | None:
    """Return a number of results, as a list of them, a number or a text; None = it is none."""
    if isinstance(found, list):
        return len(found)
    if isinstance(found, float) and found.is_integer():
        return int(found)
    return _position(found)


def _undescribed(answer: Answer, document: Any, sent: Sequence[bytes]) -> Verdict:
    """Return the verdict on a success that names no refused result at a configured place."""
    # A status that the configuration counts as success may well come with an error's text.
    told = list(_told_failures(document)) if answer.status in _SUCCESS else []
    return _halved(answer, told, sent) if told else Accepted()


def _halved(answer: Answer, told: Sequence[tuple[str, Any]], sent: Sequence[bytes]) -> Verdict:
    """Refuse a body of which some results failed, nobody knows which: it has to be halved."""
    # A list says more than a number.
    key, found = next((one for one in told if isinstance(one[1], list | dict | str)), told[0])
    while found and (isinstance(found, list) or (isinstance(found, dict) and not _has_text(found))):
        found = next(iter(found.values() if isinstance(found, dict) else found))
    said = found if isinstance(found, str) else _usual_text(found, _USUAL)
    said = normalise_message(said) or said_by(answer, "")
    texts = [str(answer.status), key or "errors", *([said] if said else [])]
    return BodyRefused(": ".join(texts), partly_applied=len(sent) > 1)


def _told_failures(value: Any, levels: int = _LEVELS) -> Iterator[tuple[str, Any]]:
    """Yield the values under keys that name failures, each with its key, without a description."""
    if levels < 0:
        return
    if isinstance(value, list):
        for inner in value:
            yield from _told_failures(inner, levels - 1)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key.lower() in _SUCCESS_WORDS and _is_no(inner):
                yield f"{key} is false", True
            elif not _tells_of_failures(key):
                yield from _told_failures(inner, levels - 1)
            elif not _is_empty(inner):
                yield key, inner


def _is_no(value: Any) -> bool:
    """Say whether the value of a key such as `success` means that it failed."""
    if isinstance(value, str):
        return value.lower() == "false"
    return value is False or (type(value) is int and value == 0)


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
    return all(each is None for each in value) if isinstance(value, list) else value in _NOTHING


def _has_text(found: dict[str, Any]) -> bool:
    return any(isinstance(one, str) for one in found.values())


def _refused(found: Any, failures: Failures, sent: Sequence[bytes]) -> RefusedResults | None:
    """Return the reasons of the refused results by their positions.

    None = an entry has no right position; or, where all results are listed with a state, one has no
    entry.
    """
    entries = list(_entries(found, failures, sent))
    positions = {position for position, _, _ in entries}
    if failures.field:
        are_objects = all(isinstance(entry, dict) for _, _, entry in entries)
        if positions != set(range(len(sent))) or not are_objects:
            return None
        entries = [
            each
            for each in entries
            if not _has_succeeded(_at(each[2], failures.field), failures.succeeded)
        ]
    elif not positions <= set(range(len(sent))):
        return None
    refused = {
        position: _message(entry, failures, key)
        for position, key, entry in entries
        if position is not None
    }
    # What tells of a failure and names nobody is no yes to everybody.
    return refused if refused or failures.field or _is_empty(found) else None


def _entries(
    found: Any, failures: Failures, sent: Sequence[bytes]
) -> Iterator[tuple[int | None, str, Any]]:
    """Yield entries, each with its position and the name of its list; None = it has no position.

    They name a value that was sent, or a position, or stand in the order of the results if all are
    listed. The answer to a single result may be the entry itself.
    """
    if failures.of:
        for position, key, entry in _named(found, failures, _held(failures, sent)):
            yield position, "" if failures.field else key or failures.at, entry
    elif failures.field and len(sent) == 1 and isinstance(found, dict) and "0" not in found:
        yield 0, "", found
    elif isinstance(found, dict):
        yield from ((_position(key), "", entry) for key, entry in found.items())
    elif isinstance(found, list):
        for number, entry in enumerate(found):
            yield number if failures.field else _position(_at(entry, failures.index)), "", entry
    else:
        yield None, "", found


def _held(failures: Failures, sent: Sequence[bytes]) -> Mapping[str, int | None]:
    """Return the positions of the results by the values that they hold; None = several hold it."""
    held: dict[str, int | None] = {}
    for position, body in enumerate(sent):
        result = parsed(body)
        places = [_at(result, path) for path in failures.of] if isinstance(result, dict) else []
        for name in _names([result, *places]):
            held[name] = position if held.get(name, position) == position else None
    return held


def _names(values: Sequence[Any]) -> list[str]:
    """Return the texts by which values are compared, without the case of their letters."""
    return [
        str(each).strip().casefold()
        for each in values
        if isinstance(each, str | int) and not isinstance(each, bool)
    ]


def _named(
    found: Any, failures: Failures, held: Mapping[str, int | None], key: str = ""
) -> Iterator[tuple[int | None, str, Any]]:
    """Yield entries, each with its position and the key of its list; None = it has no position.

    A value is a text in a list, the key of an entry, or stands in the entry at `value`.
    """
    name = key.strip().casefold()
    inside = _at(found, failures.value) if failures.value and isinstance(found, dict) else None
    if inside is not None:
        names = _names(inside if isinstance(inside, list) else [inside])
        yield from ((held.get(each), key, found) for each in names or [""])
    elif key and name in held:
        entries = found if isinstance(found, list) else [found]
        yield from ((held[name], "", entry) for entry in entries)
    elif isinstance(found, list):
        for each in found:
            if each is not None:
                yield from _named(each, failures, held, "" if isinstance(each, dict) else key)
    elif isinstance(found, dict) and not (failures.value and _has_text(found)):
        for inner_key, inner in found.items():
            yield from _named(inner, failures, held, inner_key)
    elif found:
        names = _names([found])
        yield held.get(names[0]) if names else None, key, None


def _has_succeeded(value: Any, succeeded: Sequence[Any]) -> bool:
    if not succeeded:
        return value in (None, False, "", [], {})
    listed = [text for text in succeeded if isinstance(text, str)]
    if type(value) is int and is_status(value, listed):
        return True
    # In Python 1 == True; in an answer they are two things.
    return any(value == wanted and type(value) is type(wanted) for wanted in succeeded)


def _position(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) <= _POSITION_DIGITS:
        return int(value)
    return value if type(value) is int else None


def said_by(answer: Answer, reason: str) -> str:
    """Return why an answer refuses, in its own words; "" where it does not say.

    Args:
        answer: The answer, of any status.
        reason: The path of the reason; "" = none is configured. The usual paths are looked at as
            well.
    """
    document = parsed(answer.body)
    if document is None:
        return _plain(answer.body)
    paths = (reason, *_USUAL) if reason else _USUAL
    return _usual_text(document, paths) or normalise_message(
        document if isinstance(document, str) else ""
    )


def _usual_text(document: Any, paths: Sequence[str]) -> str:
    found = (text for path in paths if isinstance(text := _at(document, path), str) and text)
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
        if isinstance(value, list) and step.startswith("["):
            value = next(iter(value[int(step[1:-1]) :]), None)
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _message(entry: Any, failures: Failures, key: str = "") -> str:
    """Return the reason in an entry; where it has none, the name of the list that it stands in."""
    said = _at(entry, failures.message) if failures.message else entry
    said = entry if said is None else said
    return normalise_message(said) if isinstance(said, str) else key or "refused"

"""Reads from a successful answer which results are refused, as the configuration describes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from worker.contract.settings.http import Failures
from worker.core.compact import parsed
from worker.core.messages import normalise_message
from worker.destinations.api import Answer

_POSITION_DIGITS: Final = 9
_STEP: Final = re.compile(r"\[[0-9]+\]|[^.\[\]]+")
_USUAL: Final = (
    "message", "error", "error.message", "error_description", "detail", "errors[].detail",
    "errors[].message", "errors[]", "title",
)  # fmt: skip
_LONGEST_TEXT: Final = 300
_NO_TEXT: Final = ("", "<")

RefusedResults = Mapping[int, str]


def is_status(status: int, listed: Sequence[str]) -> bool:
    """Say whether a status is listed, as `404` or as one of `4xx`."""
    return str(status) in listed or f"{status // 100}xx" in listed


def refused_results(document: Any, failures: Failures, results: int) -> RefusedResults | str:
    """Return what was refused, by position in the request; or why the answer is not understood.

    Args:
        document: The answer; None where it is no JSON.
        failures: How it tells.
        results: How many were sent.
    """
    found = _at(document, failures.at)
    if failures.field:
        return _in_order(found, failures, results)
    if found in (None, [], {}):
        return "the answer is no object or list" if document is None else {}
    return _listed(found, failures, results)


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


def _listed(found: Any, failures: Failures, results: int) -> RefusedResults | str:
    """Read what names only the failures: entries with positions, or an object by positions."""
    refused: dict[int, str] = {}
    for position, entry in _positions(found, failures):
        if position is None or not 0 <= position < results:
            return "it names a failure of no result that was sent"
        refused[position] = _message(entry, failures)
    return refused


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
    found = (text for place in places if isinstance(text := _at(document, place), str) and text)
    return normalise_message(next(found, document if isinstance(document, str) else ""))


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

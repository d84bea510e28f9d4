"""Reads which results a successful answer refuses, where the configuration says how it tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from worker.contract.settings.http import Failures
from worker.contract.words import Death
from worker.core.messages import normalise_message
from worker.core.verdicts import RefusedUser

_POSITION_DIGITS: Final = 9

RefusedResults = Mapping[int, RefusedUser]


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
        position: RefusedUser(Death.REFUSED, _message(entry, failures))
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
    refused: dict[int, RefusedUser] = {}
    for position, entry in _positions(found, failures):
        if position is None or not 0 <= position < results:
            return "it names a failure of no result that was sent"
        refused[position] = RefusedUser(Death.REFUSED, _message(entry, failures))
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


def _at(value: Any, path: str) -> Any:
    """Return what lies at keys joined by dots; None where there is nothing."""
    for key in path.split(".") if path else ():
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _message(entry: Any, failures: Failures) -> str:
    said = _at(entry, failures.message) if failures.message else entry
    said = entry if said is None else said
    return normalise_message(said) if isinstance(said, str) else "refused"

"""Finds texts that name a secret (`env:NAME`, `file:PATH`) where only the text itself would count.

Taken literally they would be sent, or looked for, as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from worker.contract.problems import Problem, place_of
from worker.contract.settings.values.secrets import is_reference

_ANY: Final = "*"
_PLACES: Final[tuple[tuple[str, ...], ...]] = (
    ("redis", "url"),
    ("redis", "broker_url"),
    ("authorizations", _ANY, "headers", _ANY),
    ("authorizations", _ANY, "parameters", _ANY),
    ("authorizations", _ANY, "extra", _ANY),
    ("authorizations", _ANY, "user"),
    ("authorizations", _ANY, "password"),
    ("authorizations", _ANY, "client_id"),
    ("authorizations", _ANY, "client_secret"),
    ("authorizations", _ANY, "certificate"),
    ("authorizations", _ANY, "key"),
    ("authorizations", _ANY, "authority"),
    ("destinations", _ANY, "http", "sign", "secret"),
    ("triggers", _ANY, "http", "sign", "secret"),
    ("triggers", _ANY, "url"),
    ("producer", "webhook", "secret"),
    ("producer", "webhook", "secret", _ANY),
    ("flower", "password"),
    ("lytics", "token"),
    ("metrics", "token"),
    ("operate", "notify", "url"),
    ("sync", _ANY, "source"),
)
"""The key paths at which a secret is understood, and that of a sync's source, a file."""
_NOTES: Final = frozenset({"description", "label"})
_IN_HEADERS: Final = "put it into an authorization's headers"

_Path = tuple[str | int, ...]


def misplaced_references(document: Any, path: _Path = ()) -> Iterator[Problem]:
    """Yield a problem for each text of the file that names a secret where none is understood."""
    if isinstance(document, str):
        if is_reference(document) and not _is_understood(path):
            hint = _IN_HEADERS if "headers" in path else ""
            yield Problem(place_of(path), "names a secret, which is not understood here", hint)
    elif isinstance(document, dict):
        for key, value in document.items():
            yield from misplaced_references(value, (*path, key))
    elif isinstance(document, list):
        for at, value in enumerate(document):
            yield from misplaced_references(value, (*path, at))


def _is_understood(path: _Path) -> bool:
    if path and path[-1] in _NOTES:
        return True
    return any(
        len(place) == len(path)
        and all(want in (_ANY, step) for want, step in zip(place, path, strict=True))
        for place in _PLACES
    )

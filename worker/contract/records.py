"""Records that processes keep in Redis as JSON for others, which may run another version.

Whoever reads one ignores the fields that its version does not know, and the values of a row behind
those that it knows: a newer version adds at the end. One that can't be read is
absent for its own subject only, and the status names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final, TypeVar, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from segrelay.worker.errors import FormatUnknown

_R = TypeVar("_R")
_ADAPTERS: Final[Callable[[Any], TypeAdapter[Any]]] = cache(TypeAdapter)


def read_record(
    kind: type[_R], stored: Any, name: str = "", unreadable: list[str] | None = None
) -> _R | None:
    """Return a record; None = it can't be read.

    Args:
        kind: The record's dataclass.
        stored: The record's JSON text, or the parsed object.
        name: The record's name in words, for `unreadable`.
        unreadable: The list that the name of a record that can't be read is added to.
    """
    adapter = _ADAPTERS(kind)
    is_text = isinstance(stored, bytes | str)
    try:
        found = adapter.validate_json(stored) if is_text else adapter.validate_python(stored)
    except ValidationError:
        if unreadable is not None and name not in unreadable:
            unreadable.append(name)
        return None
    return cast("_R", found)


def read_row(kind: type[_R], stored: bytes | Sequence[Any]) -> _R:
    """Return a record from a row: its values, or their JSON, in the order of its fields."""
    values = orjson.loads(stored) if isinstance(stored, bytes) else stored
    names: Sequence[str] = kind.__match_args__  # type: ignore[attr-defined]
    return kind(*values[: len(names)])


def require_record(kind: type[_R], stored: Any, name: str) -> _R:
    """Return a record without which its subject can't go on; see `read_record`.

    Raises:
        FormatUnknown: It can't be read.
    """
    found = read_record(kind, stored)
    if found is None:
        raise FormatUnknown(
            f"What Redis keeps of {name} can't be read: it is damaged, or a newer version of"
            " segrelay has written it. Use that version."
        )
    return found


def read_records(
    kind: type[_R], texts: Iterable[bytes], name: str, unreadable: list[str] | None = None
) -> list[_R]:
    """Return those of some records that can be read; see `read_record`."""
    found = (read_record(kind, text, name, unreadable) for text in texts)
    return [record for record in found if record is not None]

"""Records that processes keep in Redis as JSON for others, which may run another version."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

_R = TypeVar("_R")


_ADAPTERS: Final[Callable[[Any], TypeAdapter[Any]]] = cache(TypeAdapter)


def read_record(kind: type[_R], stored: Any) -> _R | None:
    """Return a record without the fields that this version does not know; None = unreadable.

    Args:
        kind: A dataclass.
        stored: Its JSON, or what is in it.
    """
    adapter = _ADAPTERS(kind)
    is_text = isinstance(stored, bytes | str)
    try:
        return cast(
            "_R", adapter.validate_json(stored) if is_text else adapter.validate_python(stored)
        )
    except ValidationError:
        return None

"""JSON of bodies: writes compact text, and reads text that may be no JSON."""

from __future__ import annotations

from typing import Any

import orjson


def compact_json(value: Any) -> bytes:
    """Return a value as JSON text with sorted keys that takes no more memory than its length.

    What `orjson.dumps` returns keeps the room in which it was written: 4,096 bytes for a user of
    600. A batch holds thousands of them until it is settled.

    Raises:
        orjson.JSONEncodeError: It holds what JSON has no word for.
    """
    return bytes(memoryview(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)))


def parsed(body: bytes) -> Any:
    """Return the JSON of a body, or None where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None

"""`POST /collect/json/STREAM`: the records of response streams, within Lytics' limits."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import orjson

from ops.sandbox.answer import Reply, json_answer
from ops.sandbox.lytics.switches import LyticsSwitches

RECORD_BYTES: Final = 4 * 1024
"""The largest size of a single record in bytes."""
RECORD_BYTES_IN_BATCH: Final = 16 * 1024
BODY_BYTES: Final = 10_000_000
_KEPT: Final = 100_000


class Collect:
    """The records by stream, and the number of rejected ones."""

    def __init__(self, switches: LyticsSwitches) -> None:
        self.switches = switches
        self.records: dict[str, deque[dict[str, Any]]] = {}
        self.rejected = 0

    def take(self, stream: str, body: bytes) -> Reply:
        """Accept a record, or an array of them."""
        if self.switches.collect_status != 200:  # noqa: PLR2004 - HTTP
            status = self.switches.collect_status
            return json_answer(status, {"status": status, "message": "unavailable"})
        if len(body) >= BODY_BYTES:
            return json_answer(413, {"status": 413, "message": "request body too large"})
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return json_answer(400, {"status": 400, "message": "invalid json"})
        records = value if isinstance(value, list) else [value]
        most = RECORD_BYTES_IN_BATCH if isinstance(value, list) else RECORD_BYTES
        fitting = [record for record in records if _fits(record, most)]
        self.rejected += len(records) - len(fitting)
        self.records.setdefault(stream, deque(maxlen=_KEPT)).extend(fitting)
        counts = {"message_count": len(fitting), "rejected_count": len(records) - len(fitting)}
        return json_answer(200, {"status": 200, "message": "success", "data": counts})


def _fits(record: Any, most: int) -> bool:
    if not isinstance(record, dict) or len(orjson.dumps(record)) > most:
        return False
    return not _has_objects_in_arrays(record)


def _has_objects_in_arrays(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_objects_in_arrays(each) for each in value.values())
    if isinstance(value, list):
        return any(isinstance(each, dict) or _has_objects_in_arrays(each) for each in value)
    return False

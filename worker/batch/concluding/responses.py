"""Response streams: what became of a delivery, as a record that Lytics' collect API takes.

A record is small (at most 4 KB) and holds no objects within arrays (lytics.md, section 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from worker.batch.partition import Settled, Settlement
from worker.contract.events import decode_profile
from worker.contract.words import Skip
from worker.errors import PayloadRefused

_ID: Final = "id"
_PROFILE_ID: Final = "_id"
_PAYLOAD_ID: Final = "payload_id"
_TEXT_CHARACTERS: Final = 500
"""The longest text in a record: a character takes at most six bytes, a record at most 4 KB."""
_UNTOLD: Final = frozenset({Skip.DUPLICATE, Skip.SUPERSEDED, Skip.ALREADY_THERE})
"""Outcomes that are not told, because no request was needed."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Responses:
    """The response streams of triggers.

    Args:
        streams: By trigger.
        identity: The configured identity field.
    """

    streams: Mapping[str, str] = field(default_factory=dict)
    identity: str = ""

    def of(self, settlement: Settlement, now_ms: int) -> tuple[bytes, ...]:
        """Return the records of a settlement: JSON of the stream and the record, each."""
        if not self.streams:
            return ()
        return tuple(
            orjson.dumps([stream, record])
            for settled in settlement.settled
            if (stream := self.streams.get(settled.delivery.trigger))
            and settled.reason not in _UNTOLD
            and (record := self._record(settled, settlement.status, now_ms))
        )

    def _record(self, settled: Settled, status: int, now_ms: int) -> dict[str, Any] | None:
        origin = self._origin(settled.delivery.profile)
        if not origin:
            return None
        header = settled.delivery.header
        response: dict[str, Any] = {
            "outcome": settled.kind,
            "trigger": settled.delivery.trigger,
            "audience": header.audience[:_TEXT_CHARACTERS],
            "event": header.direction.value,
            "event_time": _shown(timedelta(microseconds=header.time_us)),
            "time": _shown(timedelta(milliseconds=now_ms)),
        }
        if settled.reason:
            response["reason"] = settled.reason.value
        if settled.letter:
            response |= _why(settled.letter.sample)
        elif status:
            response["status"] = status
        return {"origin": origin, "response": response}

    def _origin(self, packed: bytes) -> dict[str, Any]:
        """Return the identity of a profile under its own name; {} where it can't be read."""
        try:
            profile = orjson.loads(decode_profile(packed))
        except (PayloadRefused, orjson.JSONDecodeError):
            return {}
        if not isinstance(profile, dict):
            return {}
        name, value = self.identity, profile.get(self.identity)
        if name == _ID:
            name, value = _PROFILE_ID, profile.get(_PROFILE_ID) or profile.get(_PAYLOAD_ID)
        if isinstance(value, str):
            return {name: value[:_TEXT_CHARACTERS]}
        return {name: value} if isinstance(value, int) else {}


NO_RESPONSES: Final = Responses()


def _why(sample: bytes) -> dict[str, Any]:
    """Return status and message of a death; the sample of its cause holds no profile field."""
    told = orjson.loads(sample)
    why: dict[str, Any] = {"message": str(told["message"])[:_TEXT_CHARACTERS]}
    return why | ({"status": told["status"]} if told["status"] else {})


def _shown(since: timedelta) -> str:
    return (_EPOCH + since).isoformat().replace("+00:00", "Z")

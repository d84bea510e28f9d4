"""Response streams: what became of a delivery, as a record that Lytics' collect API takes.

A record is at most 16 KB in a batch and holds no objects within arrays (lytics.md, section 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from worker.batch.partition import Settled, Settlement
from worker.contract.events import decode_profile
from worker.contract.words import Skip
from worker.destinations.api import Answer
from worker.errors import PayloadRefused

_ID: Final = "id"
_PROFILE_ID: Final = "_id"
_PAYLOAD_ID: Final = "payload_id"
_TEXT_CHARACTERS: Final = 500
_FIELDS_AT_MOST: Final = 8
"""Values in `origin`, of at most 500 characters each."""
_HEADERS_AT_MOST: Final = 8
BODY_BYTES: Final = 8_000
"""Bytes of an answer in one record, which then stays below what Lytics takes."""
REQUEST_BYTES: Final = 64_000
"""Bytes of an answer in all records of its request."""
_UNTOLD: Final = frozenset({Skip.DUPLICATE, Skip.SUPERSEDED, Skip.ALREADY_THERE})
"""Outcomes that are not told, because no request was needed."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ResponseStream(NamedTuple):
    """The response stream of a trigger.

    Attributes:
        name: As Lytics knows it.
        headers: Of the answer, that it is told.
        fields: Of the profile, that it is told; none = the identity.
    """

    name: str
    headers: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Responses:
    """The response streams of triggers.

    Args:
        streams: By trigger.
        identity: The configured identity field.
    """

    streams: Mapping[str, ResponseStream] = field(default_factory=dict)
    identity: str = ""

    def of(self, settlement: Settlement, now_ms: int) -> tuple[bytes, ...]:
        """Return the records of a settlement: JSON of the stream and the record, each."""
        if not self.streams:
            return ()
        told = [
            (stream, settled)
            for settled in settlement.settled
            if (stream := self.streams.get(settled.delivery.trigger))
            and settled.reason not in _UNTOLD
        ]
        room = min(BODY_BYTES, REQUEST_BYTES // max(1, len(told)))
        return tuple(
            orjson.dumps([stream.name, record])
            for stream, settled in told
            if (record := self._record(settled, stream, room, now_ms))
        )

    def _record(
        self, settled: Settled, stream: ResponseStream, room: int, now_ms: int
    ) -> dict[str, Any] | None:
        origin = self._origin(settled.delivery.profile, stream.fields)
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
        if settled.answer:
            response |= _answered(settled.answer, stream, room)
        return {"origin": origin, "response": response}

    def _origin(self, packed: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
        """Return the named fields of a profile, or its identity; {} where it can't be read."""
        try:
            profile = orjson.loads(decode_profile(packed))
        except (PayloadRefused, orjson.JSONDecodeError):
            return {}
        if not isinstance(profile, dict):
            return {}
        named = {name: profile.get(name) for name in fields[:_FIELDS_AT_MOST]}
        found = {name: value for name, value in named.items() if _is_plain(value)}
        if not found:
            name, value = self.identity, profile.get(self.identity)
            if name == _ID:
                name, value = _PROFILE_ID, profile.get(_PROFILE_ID) or profile.get(_PAYLOAD_ID)
            found = {name: value} if _is_plain(value) else {}
        return {
            name: value[:_TEXT_CHARACTERS] if isinstance(value, str) else value
            for name, value in found.items()
        }


NO_RESPONSES: Final = Responses()


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _answered(answer: Answer, stream: ResponseStream, room: int) -> dict[str, Any]:
    """Return status, named headers and body of an answer; a long body is a cut text."""
    told: dict[str, Any] = {"status": answer.status}
    headers = {
        name: text[:_TEXT_CHARACTERS]
        for name in stream.headers[:_HEADERS_AT_MOST]
        if (text := answer.headers.get(name))
    }
    if headers:
        told["headers"] = headers
    if not answer.body:
        return told
    if len(answer.body) > room or answer.truncated:
        cut = answer.body[:room].decode(errors="ignore")
        return told | {"body": cut, "body_is_cut": True}
    try:
        return told | {"body": _flat(orjson.loads(answer.body))}
    except orjson.JSONDecodeError:
        return told | {"body": answer.body.decode(errors="replace")}


def _flat(value: Any) -> Any:
    """Return a value without objects in arrays: an array of them becomes an object by positions."""
    if isinstance(value, dict):
        return {name: _flat(each) for name, each in value.items()}
    if isinstance(value, list):
        inner = [_flat(each) for each in value]
        if any(isinstance(each, dict | list) for each in inner):
            return {str(at): each for at, each in enumerate(inner)}
        return inner
    return value


def _why(sample: bytes) -> dict[str, Any]:
    """Return status and message of a death; the sample of its cause holds no profile field."""
    told = orjson.loads(sample)
    why: dict[str, Any] = {"message": str(told["message"])[:_TEXT_CHARACTERS]}
    return why | ({"status": told["status"]} if told["status"] else {})


def _shown(since: timedelta) -> str:
    return (_EPOCH + since).isoformat().replace("+00:00", "Z")

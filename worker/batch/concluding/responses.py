"""Response streams: what became of a delivery, as a record that Lytics' collect API takes.

A record is at most 16 KB in a batch and holds no objects within arrays (lytics.md, section 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from worker.batch.concluding.answer_body import body_parts
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
"""The most values in the `origin` of a record, of at most 500 characters each."""
_HEADERS_AT_MOST: Final = 8
PART_BYTES: Final = 8_000
"""The most bytes of an answer's body in one record, so that Lytics accepts the record."""
REQUEST_BYTES: Final = 64_000
"""The most bytes of an answer's body in all records of its request together."""
_OF_EACH_PART: Final = ("trigger", "audience", "event", "event_time", "time")
"""Fields that all records of one answer have. Only the first has the outcome, to count it once."""
_UNTOLD: Final = frozenset({Skip.DUPLICATE, Skip.SUPERSEDED, Skip.ALREADY_THERE})
"""Reasons of skipped deliveries that get no record, because no request was needed."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ResponseStream(NamedTuple):
    """The response stream of a trigger.

    Attributes:
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
        """Return the records about a settlement, each as JSON: its stream's name and the record."""
        if not self.streams:
            return ()
        told = [
            (stream, settled)
            for settled in settlement.settled
            if (stream := self.streams.get(settled.delivery.trigger))
            and settled.reason not in _UNTOLD
        ]
        room = REQUEST_BYTES // max(1, len(told))
        return tuple(
            orjson.dumps([stream.name, record])
            for stream, settled in told
            for record in self._records(settled, stream, room, now_ms)
        )

    def _records(
        self, settled: Settled, stream: ResponseStream, room: int, now_ms: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the records of a delivery: one, or several if the answer's body is long."""
        origin = self._origin(settled.delivery.profile, stream.fields)
        if not origin:
            return
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
            response |= _answered(settled.answer, stream)
        parts = list(_told_body(settled.answer, room)) if settled.answer else []
        yield {"origin": origin, "response": response | (parts[0] if parts else {})}
        for part in parts[1:]:
            yield {"origin": origin, "response": {n: response[n] for n in _OF_EACH_PART} | part}

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


def _answered(answer: Answer, stream: ResponseStream) -> dict[str, Any]:
    """Return status and named headers of an answer."""
    told: dict[str, Any] = {"status": answer.status}
    headers = {
        name: text[:_TEXT_CHARACTERS]
        for name in stream.headers[:_HEADERS_AT_MOST]
        if (text := answer.headers.get(name))
    }
    if headers:
        told["headers"] = headers
    return told


def _told_body(answer: Answer, room: int) -> Iterator[dict[str, Any]]:
    """Yield the fields about an answer's body, for each record of the answer."""
    if not answer.body:
        return
    found = body_parts(answer.body, PART_BYTES, whole=room, is_truncated=answer.truncated)
    cut = {"body_cut": True} if found.is_cut else {}
    count = len(found.parts)
    for at, part in enumerate(found.parts, start=1):
        yield {"body": part} | ({"body_part": at, "body_parts": count} if count > 1 else {}) | cut


def _why(sample: bytes) -> dict[str, Any]:
    """Return status and message of a death; the sample of its cause holds no profile field."""
    told = orjson.loads(sample)
    why: dict[str, Any] = {"message": str(told["message"])[:_TEXT_CHARACTERS]}
    return why | ({"status": told["status"]} if told["status"] else {})


def _shown(since: timedelta) -> str:
    return (_EPOCH + since).isoformat().replace("+00:00", "Z")

"""Response streams: what became of a delivery, as a record that Lytics' collect API takes.

A record is at most 16 KB in a batch and holds no objects within arrays (Lytics' documentation). So
the body of an answer is told as JSON up to half of that; a longer one is a text that is cut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import Answer
from segrelay.worker.errors import PayloadRefused

_TEXT_CHARACTERS: Final = 500
_FIELDS_AT_MOST: Final = 8
"""The most values in the `origin` of a record, of at most 500 characters each."""
_HEADERS_AT_MOST: Final = 8
BODY_BYTES: Final = 8_000
"""The most bytes of an answer's body in a record, so that Lytics accepts the record."""
_DEEPEST: Final = 100
"""The most levels of a body that is reported as JSON; a deeper body is reported as text."""
REQUEST_BYTES: Final = 64_000
"""The most bytes of an answer's body in all records of its request together."""
_QUOTES: Final = 2
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
            (stream, delivery)
            for delivery in settlement.settled
            if (stream := self.streams.get(delivery.trigger))
            and (delivery.reason is None or delivery.reason.effects.is_reported)
        ]
        room = REQUEST_BYTES // max(1, len(told))
        return tuple(
            orjson.dumps([stream.name, {"origin": origin, "response": response}])
            for stream, delivery in told
            if (origin := self._origin(delivery.profile, stream.fields))
            for response in (_response(delivery, stream, min(room, BODY_BYTES), now_ms),)
        )

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
            if name == "id":
                name, value = "_id", profile.get("_id") or profile.get("payload_id")
            found = {name: value} if _is_plain(value) else {}
        return {
            name: value[:_TEXT_CHARACTERS] if isinstance(value, str) else value
            for name, value in found.items()
        }


NO_RESPONSES: Final = Responses()


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _response(delivery: Delivery, stream: ResponseStream, room: int, now_ms: int) -> dict[str, Any]:
    """Return what is told of a delivery; of its answer's body, at most `room` bytes."""
    header, answer, failure = delivery.header, delivery.answer, delivery.failure
    response: dict[str, Any] = {
        "outcome": delivery.outcome,
        "trigger": delivery.trigger,
        "audience": header.audience[:_TEXT_CHARACTERS],
        "event": header.direction.value,
        "event_time": _shown(timedelta(microseconds=header.time_us)),
        "time": _shown(timedelta(milliseconds=now_ms)),
    }
    if delivery.reason:
        response["reason"] = delivery.reason.value
    if delivery.outcome == "dead" and failure:
        response["message"] = normalise_message(failure.message)
    if answer:
        headers = {
            name: text[:_TEXT_CHARACTERS]
            for name in stream.headers[:_HEADERS_AT_MOST]
            if (text := answer.headers.get(name))
        }
        response |= {"status": answer.status} | ({"headers": headers} if headers else {})
        response |= _told_body(answer, room) if answer.body else {}
    return response


def _told_body(answer: Answer, room: int) -> dict[str, Any]:
    """Return the body of an answer, as JSON if it is that, and whether something of it is cut."""
    is_cut = answer.truncated or len(answer.body) > room
    if not is_cut:
        with contextlib.suppress(orjson.JSONDecodeError, RecursionError):
            value = _flat(orjson.loads(answer.body))
            if len(orjson.dumps(value)) <= BODY_BYTES:
                return {"body": value}
    text = answer.body[:room].decode(errors="ignore" if is_cut else "replace")
    while (size := len(orjson.dumps(text))) > BODY_BYTES + _QUOTES:
        text, is_cut = text[: len(text) * BODY_BYTES // size], True
    return {"body": text} | ({"body_cut": True} if is_cut else {})


def _flat(value: Any, depth: int = 0) -> Any:
    """Return a value in which each array that holds objects or arrays is an object by positions.

    Raises:
        RecursionError: It has more levels than `_DEEPEST`.
    """
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        return {name: _flat(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        inner = [_flat(each, depth + 1) for each in value]
        if any(isinstance(each, dict | list) for each in inner):
            return {str(at): each for at, each in enumerate(inner)}
        return inner
    return value


def _shown(since: timedelta) -> str:
    return (_EPOCH + since).isoformat().replace("+00:00", "Z")

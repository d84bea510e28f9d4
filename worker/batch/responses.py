"""Response streams: what became of a delivery, as a record that Lytics' collect API takes.

A record is at most 16 KB in a batch and holds no objects within arrays (lytics.md, section 1). So
the body of an answer is parted. A part of an object or an array has some of its fields, each where
it stood: merged, the parts are the whole body. A text is cut into pieces that follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.events import decode_profile
from segrelay.worker.destinations.api import Answer
from segrelay.worker.errors import PayloadRefused

_LEAST: Final = 40
"""The least room, in bytes, for a piece of a value; with less room, the value is left out."""
_DEEPEST: Final = 100
"""The most levels of a body that is reported as JSON; a deeper body is reported as text."""
_SYMBOLS: Final = 2
"""The bytes of the brackets around an object, or of the colon and the comma of a field."""


@dataclass(frozen=True, slots=True)
class BodyParts:
    """The body of an answer, split into parts for the records of a response stream.

    Args:
        parts: In their order, each a value of JSON without objects in arrays.
        is_cut: Something of it is not told.
    """

    parts: list[Any]
    is_cut: bool = False


def body_parts(body: bytes, room: int, *, whole: int, is_truncated: bool) -> BodyParts:
    """Split a body into parts of at most `room` bytes; one over `whole` bytes is cut, as a text."""
    text = body[:whole].decode(errors="ignore" if len(body) > whole else "replace")
    is_cut = is_truncated or len(body) > whole
    value: Any = text
    if not is_cut:
        try:
            value = _flat(orjson.loads(body))
        except (orjson.JSONDecodeError, _TooDeepError):
            value = text
    splitting = _Splitting()
    parts = list(splitting.parts(value, room))
    return BodyParts(parts, is_cut or splitting.has_cut)


class _Splitting:
    """Splits one value; `has_cut` says that some of it had to be left out."""

    def __init__(self) -> None:
        self.has_cut = False

    def parts(self, value: Any, room: int) -> Iterator[Any]:
        if _size(value) <= room:
            yield value
        elif room < _LEAST or not isinstance(value, str | dict | list):
            self.has_cut = True
        elif isinstance(value, str):
            yield from self._pieces(value, room)
        else:
            fields = value if isinstance(value, dict) else dict(_by_position(value))
            yield from self._objects(fields, room)

    def _pieces(self, text: str, room: int) -> Iterator[str]:
        """Yield pieces of a text; a character takes up to 6 bytes with its escape."""
        while text:
            piece = text[:room]
            while _size(piece) > room:
                piece = piece[: max(1, len(piece) * (room - _SYMBOLS) // _size(piece) - 1)]
            yield piece
            text = text[len(piece) :]

    def _objects(self, fields: dict[str, Any], room: int) -> Iterator[dict[str, Any]]:
        part: dict[str, Any] = {}
        used = _SYMBOLS
        for name, value in fields.items():
            around = _size(name) + _SYMBOLS
            for each in self.parts(value, room - _SYMBOLS - around):
                size = around + _size(each)
                if part and (name in part or used + size > room):
                    yield part
                    part, used = {}, _SYMBOLS
                part[name] = each
                used += size
        if part:
            yield part


def _size(value: Any) -> int:
    return len(orjson.dumps(value))


def _by_position(values: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((str(at), each) for at, each in enumerate(values))


class _TooDeepError(Exception):
    """A body has more levels than `_DEEPEST`."""


def _flat(value: Any, depth: int = 0) -> Any:
    """Return a value in which each array that holds objects or arrays is an object by positions.

    Raises:
        _TooDeepError: `orjson` could not write it.
    """
    if depth > _DEEPEST:
        raise _TooDeepError
    if isinstance(value, dict):
        return {name: _flat(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        inner = [_flat(each, depth + 1) for each in value]
        if any(isinstance(each, dict | list) for each in inner):
            return dict(_by_position(inner))
        return inner
    return value


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
            orjson.dumps([stream.name, record])
            for stream, delivery in told
            for record in self._records(delivery, stream, room, now_ms)
        )

    def _records(
        self, delivery: Delivery, stream: ResponseStream, room: int, now_ms: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the records of a delivery: one, or several if the answer's body is long."""
        origin = self._origin(delivery.profile, stream.fields)
        if not origin:
            return
        header = delivery.header
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
        if delivery.dead_letter:
            response |= _why(delivery.dead_letter.sample)
        if delivery.answer:
            response |= _answered(delivery.answer, stream)
        parts = list(_told_body(delivery.answer, room)) if delivery.answer else []
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

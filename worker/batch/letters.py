"""Dead letters, with all that a person needs to understand them and a replay to repeat them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from worker.batch.partition import Delivery, Letter
from worker.contract.events import decode_profile, encode_header
from worker.contract.words import Death
from worker.core.messages import normalise_message
from worker.destinations.api import NO_HEADERS
from worker.errors import PayloadRefused

BODY_BYTES: Final = 100_000
ANSWER_BYTES: Final = 2_000
_ID_BYTES: Final = 6
_CAUSE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Obituary:
    """The cause of a delivery's death, with what was sent and answered.

    Args:
        message: For a person; it holds no field of the profile.
        body: What was rendered, if the delivery came that far.
        status: The last answer's; 0 = there was none.
        answer: The beginning of the last answer's body.
        attempts: How many requests carried it.
        headers: The last answer's.
    """

    reason: Death
    message: str
    template: str = ""
    body: bytes = b""
    status: int = 0
    answer: bytes = b""
    attempts: int = 0
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, repr=False)

    @property
    def cause(self) -> str:
        """Return the fingerprint of reason, status and normalised message."""
        text = f"{self.reason.value}|{self.status}|{normalise_message(self.message)}"
        return hashlib.blake2b(text.encode(), digest_size=_CAUSE_BYTES).hexdigest()


def letter_of(
    delivery: Delivery, obituary: Obituary, *, tag: tuple[str, int], now_ms: int
) -> Letter:
    """Return the dead letter of a delivery.

    Args:
        delivery: The delivery that died.
        obituary: Why it died.
        tag: Destination and partition.
        now_ms: Redis' clock.
    """
    destination, partition = tag
    letter_id = _letter_id(destination, partition, delivery.place)
    header = delivery.header
    text: dict[str, Any] = {
        "id": letter_id,
        "destination": destination,
        "partition": partition,
        "trigger": delivery.trigger,
        "stream": delivery.stream,
        "entry_id": delivery.entry_id,
        "audience": header.audience,
        "direction": header.direction.value,
        "time_us": header.time_us,
        "replays": header.replays,
        "reason": obituary.reason.value,
        "message": obituary.message[:1000],
        "cause": obituary.cause,
        "template": obituary.template,
        "body": obituary.body[:BODY_BYTES].decode(errors="replace"),
        "status": obituary.status,
        "answer": obituary.answer[:ANSWER_BYTES].decode(errors="replace"),
        "attempts": obituary.attempts,
        "first_at_ms": header.accepted_ms,
        "last_at_ms": now_ms,
        "header": orjson.Fragment(encode_header(header)),
        **_entry(delivery),
    }
    sample = _sample(delivery, obituary, letter_id)
    return Letter(letter_id, obituary.cause, sample, orjson.dumps(text))


def _letter_id(destination: str, partition: int, place: str) -> str:
    whole = f"{destination}|{partition}|{place}"
    short = hashlib.blake2b(whole.encode(), digest_size=_ID_BYTES).hexdigest()
    return f"{destination}.{partition}.{short}"


def _sample(delivery: Delivery, obituary: Obituary, letter_id: str) -> bytes:
    sample = {
        "reason": obituary.reason.value,
        "status": obituary.status,
        "message": normalise_message(obituary.message),
        "trigger": delivery.trigger,
        "letter": letter_id,
    }
    return orjson.dumps(sample)


def _entry(delivery: Delivery) -> dict[str, Any]:
    """Return a letter's fields for the profile; if it can't be read, the entry byte for byte."""
    try:
        profile = orjson.loads(decode_profile(delivery.profile))
        is_readable = isinstance(profile, dict) and delivery.header.time_us > 0
    except (PayloadRefused, orjson.JSONDecodeError):
        is_readable = False
    if is_readable:
        return {"profile": profile}
    fields = (delivery.header_text, delivery.profile)
    return {"entry": [base64.b64encode(text).decode() for text in fields], "profile": None}

"""Dead letters, with all that a person needs to understand them and a replay to repeat them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from segrelay.worker.batch.partition import DeadLetter, Delivery
from segrelay.worker.contract.events import decode_profile, encode_header
from segrelay.worker.contract.words import Death
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import NO_HEADERS
from segrelay.worker.errors import PayloadRefused

BODY_BYTES: Final = 100_000
ANSWER_BYTES: Final = 2_000
_ID_BYTES: Final = 6
_CAUSE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Failure:
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


def dead_letter_of(
    delivery: Delivery, failure: Failure, *, tag: tuple[str, int], now_ms: int
) -> DeadLetter:
    """Return the dead letter of a delivery.

    Args:
        delivery: The delivery that died.
        failure: Why it died.
        tag: Destination and partition.
        now_ms: Redis' clock.
    """
    destination, partition = tag
    dead_letter_id = _dead_letter_id(destination, partition, delivery.place)
    header = delivery.header
    text: dict[str, Any] = {
        "id": dead_letter_id,
        "destination": destination,
        "partition": partition,
        "trigger": delivery.trigger,
        "stream": delivery.stream,
        "entry_id": delivery.entry_id,
        "audience": header.audience,
        "direction": header.direction.value,
        "time_us": header.time_us,
        "replays": header.replays,
        "reason": failure.reason.value,
        "message": failure.message[:1000],
        "cause": failure.cause,
        "template": failure.template,
        "body": failure.body[:BODY_BYTES].decode(errors="replace"),
        "status": failure.status,
        "answer": failure.answer[:ANSWER_BYTES].decode(errors="replace"),
        "attempts": failure.attempts,
        "first_at_ms": header.accepted_ms,
        "last_at_ms": now_ms,
        "header": orjson.Fragment(encode_header(header)),
        **_entry(delivery),
    }
    sample = _sample(delivery, failure, dead_letter_id)
    return DeadLetter(dead_letter_id, failure.cause, sample, orjson.dumps(text))


def _dead_letter_id(destination: str, partition: int, place: str) -> str:
    whole = f"{destination}|{partition}|{place}"
    short = hashlib.blake2b(whole.encode(), digest_size=_ID_BYTES).hexdigest()
    return f"{destination}.{partition}.{short}"


def _sample(delivery: Delivery, failure: Failure, dead_letter_id: str) -> bytes:
    sample = {
        "reason": failure.reason.value,
        "status": failure.status,
        "message": normalise_message(failure.message),
        "trigger": delivery.trigger,
        "letter": dead_letter_id,
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

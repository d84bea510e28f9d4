"""A delivery: one event for one trigger, one record from its stream to its settlement.

Also the trigger as a drain uses it, and the dead letter of a delivery that fails.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

import orjson

from segrelay.jsonnet.rendered import Engine, Template
from segrelay.worker.contract.events import (
    Header,
    decode_profile,
    encode_header,
    read_header,
)
from segrelay.worker.contract.keys import PartitionKeys, outcome_field, split_stream_name
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.protection import DEAD_LETTERS, PROTECTION
from segrelay.worker.contract.words import Death, Skip
from segrelay.worker.core.ledger import LedgerEvent, with_delivered, with_tried, with_whole_list
from segrelay.worker.core.messages import normalise_message
from segrelay.worker.destinations.api import Answer, Api, Shaped, ShapingRules
from segrelay.worker.errors import PayloadRefused

BODY_BYTES: Final = 100_000
ANSWER_BYTES: Final = 2_000
_ID_BYTES: Final = 6
_CAUSE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class LoadedTrigger:
    """A trigger as a drain uses it, loaded once per process.

    Args:
        api_name: The destination's API as configured, `insider` or `http`.
        template: The template of the body; None = it is broken, and the trigger is stopped.
        headers: The authorization's headers, revealed; `{token}` stands for a token.
        params: The authorization's URL parameters, revealed; `{token}` stands for a token.
        settings: The values that templates read with `jobConfGet`.
        engine: The configured engine; `jsonnet` = the template's compiled form is never used.
        stopped: The reason why it can't deliver until its template is mended, or a secret is set;
            "" = it can.
        token_of: The authorization whose token requests carry; "" = none.
        envelope: The template that makes the whole body of the array of results; None = there is
            none.
        authority: The file of the private authority that the endpoint's certificate is signed by.
        edition: A fingerprint of all that decides what it sends: templates and configuration.
    """

    name: str
    api: Api
    api_name: str
    template: Template | None
    rules: ShapingRules
    headers: Mapping[str, str] = field(repr=False)
    params: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, Any]
    on_ambiguous: Literal["resend", "dead_letter"]
    engine: Engine = "auto"
    stopped: str = ""
    token_of: str = ""
    authority: str = ""
    envelope: Template | None = None
    edition: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason for a delivery's death.

    Args:
        message: The reason for a person, without a field of the profile.
        answer: The destination's answer of which the delivery dies; None = it dies of something
            else.
    """

    reason: Death
    message: str
    answer: Answer | None = None

    @property
    def status(self) -> int:
        """Return the status of the answer; 0 = there was none."""
        return self.answer.status if self.answer else 0

    @property
    def cause(self) -> str:
        """Return the fingerprint of reason, status and normalised message."""
        text = f"{self.reason.value}|{self.status}|{normalise_message(self.message)}"
        return hashlib.blake2b(text.encode(), digest_size=_CAUSE_BYTES).hexdigest()


def seal_dead_letter(dead_letter_id: str, digest: str, text: bytes) -> bytes:
    """Return a dead letter as Redis may hold it.

    Its id is not sealed, nor is the digest by which the dead letters of a person are found.
    """
    if not PROTECTION:
        return text
    sealed = PROTECTION.seal(text, DEAD_LETTERS + dead_letter_id.encode())
    told = {"id": dead_letter_id, "digest": digest, "sealed": base64.b64encode(sealed).decode()}
    return orjson.dumps(told)


def unseal_dead_letter(stored: bytes) -> bytes:
    """Return a dead letter that `seal_dead_letter` has sealed.

    Raises:
        FormatUnknown: It was sealed with the secret of another Redis.
        PayloadRefused: It is damaged, or belongs to another id.
    """
    if not PROTECTION:
        return stored
    dead_letter_id = "?"
    try:
        told = orjson.loads(stored)
        dead_letter_id = told["id"]
        sealed = base64.b64decode(told["sealed"])
        return PROTECTION.unseal(sealed, DEAD_LETTERS + dead_letter_id.encode())
    except (LookupError, TypeError, ValueError, PayloadRefused) as error:
        message = f"The dead letter {dead_letter_id} is damaged."
        raise PayloadRefused("unreadable", message) from error


_NOTHING: Final = Shaped((), {})


@dataclass(slots=True, repr=False, eq=False)
class Delivery:
    """One event for one trigger. Its fields are set as they become known.

    A frozen class would take three times as long to make.

    Args:
        stream: The name of its stream, `lane|trigger`.
        trigger: The trigger's name.
        profile: The fields that the trigger exports, packed; see `events.decode_profile`.
        header_text: The header as it stands in the stream.

    Attributes:
        position: `lane|trigger|id`.
        digest: The digest of the delivery's profile.
        loaded: The trigger; known once the delivery is decoded, like the next two.
        event: The event as the ledger judges it.
        text: The profile as JSON text.
        superseded: Older deliveries of its batch that it supersedes; settled together with it.
        body: The rendered text, which a dead letter shows.
        shaped: The body made valid.
        names: The profile's digest, and the identifiers by which the destination knows it.
        sent: The body as the ledger corrected it for its request.
        users: The user objects that carry it in its request, as JSON.
        attempts: The number of requests that failed with it, and the one that carries it.
        failure: The reason why it can't be delivered, if it is to die of that.
        reason: The reason why it was skipped or is dead; None = it was delivered.
        is_unwanted: True if its trigger did not want it any more when it was read.
        tells: True if the profile's ledger tells of its outcome; see `Settlement.ledgers`.
        remark: The message in its row of the outcome log; "" = none.
        answer: The destination's answer to its request; None = nothing, or there was none.
        dead_letter: The text that Redis is given of a dead one, see `_dead_letter_of`.
    """

    stream: str
    trigger: str
    entry_id: str
    header: Header
    profile: bytes
    header_text: bytes = b""
    position: str = field(init=False)
    digest: bytes = field(init=False)
    loaded: LoadedTrigger = field(init=False)
    event: LedgerEvent = field(init=False)
    text: bytes = b""
    superseded: tuple[Delivery, ...] = ()
    body: bytes = b""
    shaped: Shaped = _NOTHING
    names: frozenset[bytes | str] = frozenset()
    sent: Shaped = _NOTHING
    users: tuple[bytes, ...] = ()
    attempts: int = 0
    failure: Failure | None = None
    reason: Skip | Death | None = None
    is_unwanted: bool = False
    tells: bool = False
    remark: str = ""
    answer: Answer | None = None
    dead_letter: bytes = b""

    def __post_init__(self) -> None:
        """Keep position and digest, which are read often."""
        self.position, self.digest = f"{self.stream}|{self.entry_id}", self.header.digest

    @classmethod
    def of(cls, stream: str, entry_id: str, header_text: bytes, profile: bytes) -> Self:
        """Return the delivery that an entry of a stream holds."""
        trigger, header = split_stream_name(stream)[1], read_header(header_text)
        return cls(stream, trigger, entry_id, header, profile, header_text)

    @property
    def size(self) -> int:
        """Return the size of the delivery's entry in bytes."""
        return len(self.header_text) + len(self.profile)

    def fail(self, reason: Death, message: str, answer: Answer | None = None) -> Self:
        """Note why the delivery can't be made; it dies only once that is settled."""
        self.failure = Failure(reason, message, answer)
        return self

    def skip(self, reason: Skip, remark: str, answer: Answer | None = None) -> Self:
        """Note that the delivery need not be made; an answer may have said so."""
        self.reason, self.remark, self.answer = reason, remark, answer
        self.tells = reason.effects.updates_ledger
        return self

    def succeed(self, answer: Answer | None) -> Self:
        """Note that the destination has accepted the delivery."""
        self.reason, self.remark, self.tells, self.answer = None, "", True, answer
        return self

    def die(self, *, keys: PartitionKeys, now_ms: int) -> None:
        """Make the dead letter of a delivery that failed.

        Args:
            keys: The keys of its partition.
            now_ms: The time of its death, by Redis' clock.
        """
        failure = self.failure
        assert failure is not None
        self.reason, self.tells = failure.reason, False
        self.remark = f"{failure.reason.value}: cause {failure.cause}"
        self.answer = failure.answer
        self.dead_letter = _dead_letter_of(self, failure, keys=keys, now_ms=now_ms)

    def free_memory(self) -> None:
        """Forget what nobody needs once Redis has the outcome; the batch lives on for a while."""
        self.text = self.body = self.dead_letter = b""
        self.shaped = self.sent = _NOTHING

    @property
    def template_hash(self) -> str:
        """Return the digest of the template that the delivery was rendered by; "" = none was."""
        is_rendered = self.body or self.reason is None or self.reason.effects.names_template
        template = self.loaded.template if is_rendered else None
        return template.content_hash if template else ""

    @property
    def outcome(self) -> str:
        """Return the word under which the outcome is counted."""
        if self.reason is None:
            return "delivered"
        return "skipped" if isinstance(self.reason, Skip) else "dead"

    @property
    def counted_as(self) -> str:
        """Return the field of `counts` that the outcome adds to."""
        return outcome_field(self.outcome, self.stream, self.reason or "")

    def delivered_in(self, record: Record) -> Record:
        """Return the profile's record after this delivery."""
        data_sent = self.loaded.api.tells_data(self.shaped, self.header, self.loaded.rules)
        return self._after_body(with_delivered(record, self.event, data_sent=data_sent))

    def tried_in(self, record: Record) -> Record:
        """Return the profile's record after a request that got no sure answer."""
        return self._after_body(with_tried(record, self.event))

    def _after_body(self, record: Record) -> Record:
        """Return the record after the body was sent, which may replace the whole audience list."""
        if self.loaded.api.overwrites(self.shaped):
            return with_whole_list(record, self.header.time_us)
        return record


def _dead_letter_of(
    delivery: Delivery, failure: Failure, *, keys: PartitionKeys, now_ms: int
) -> bytes:
    """Return the dead letter of a delivery, all that a replay and a person need.

    Returns:
        Its id, its cause, a line of JSON about the cause, which holds no field of a profile, and
        the dead letter itself; `settle.lua` takes these lines apart.
    """
    whole = f"{keys.destination}|{keys.number}|{delivery.position}"
    short = hashlib.blake2b(whole.encode(), digest_size=_ID_BYTES).hexdigest()
    dead_letter_id = f"{keys.destination}.{keys.number}.{short}"
    header, answer = delivery.header, failure.answer
    text: dict[str, Any] = {
        "id": dead_letter_id,
        "partition": keys.number,
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
        "template": delivery.template_hash,
        "body": delivery.body[:BODY_BYTES].decode(errors="replace"),
        "status": failure.status,
        "answer": (answer.body if answer else b"")[:ANSWER_BYTES].decode(errors="replace"),
        "attempts": delivery.attempts,
        "first_at_ms": header.accepted_ms,
        "last_at_ms": now_ms,
        "header": orjson.Fragment(encode_header(header)),
        **_entry(delivery),
    }
    sample = {
        "reason": failure.reason.value,
        "status": failure.status,
        "message": normalise_message(failure.message),
        "trigger": delivery.trigger,
        "letter": dead_letter_id,
    }
    stored = seal_dead_letter(dead_letter_id, header.digest.hex(), orjson.dumps(text))
    names = (dead_letter_id.encode(), failure.cause.encode())
    return b"\n".join((*names, orjson.dumps(sample), stored))


def _entry(delivery: Delivery) -> dict[str, Any]:
    """Return a dead letter's fields for the profile; if it can't be read, the entry as it is."""
    try:
        profile = orjson.loads(decode_profile(delivery.profile))
        is_readable = isinstance(profile, dict) and not delivery.header.is_broken
    except (PayloadRefused, orjson.JSONDecodeError):
        is_readable = False
    if is_readable:
        return {"profile": profile}
    header = delivery.header
    # What did not open stays as it was: a replay must not seal what somebody else has written.
    stored = (
        delivery.profile if header.is_broken else PROTECTION.seal(delivery.profile, header.digest)
    )
    fields = (delivery.header_text, stored)
    return {"entry": [base64.b64encode(text).decode() for text in fields], "profile": None}

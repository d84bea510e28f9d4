"""Decode a batch, ask the ledger, and pick the newest of competing events.

Before anything is decided, people are recognized by their stable ids: the events of somebody whose
identity changes wait, and those under a former identity go to the present one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from segrelay.worker.batch.batch import Batch, Numbers
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Intent, LedgerText
from segrelay.worker.batch.read import is_full
from segrelay.worker.contract.events import (
    UNKNOWN_FORMAT,
    decode_header,
    decode_profile,
)
from segrelay.worker.contract.ledger import unpack_all
from segrelay.worker.contract.people import (
    WAITS,
    Forward,
    Moving,
    Recognizer,
    Sighting,
    key_of,
    stable_digest,
    stable_value,
)
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.words import Death, Direction, Skip
from segrelay.worker.core.ledger import (
    is_in_doubt,
    judge,
    with_raised,
    with_tried,
    with_whole_list,
)
from segrelay.worker.core.supersede import LedgerEvent, contest
from segrelay.worker.errors import Bug, FormatUnknown, PayloadRefused
from segrelay.worker.logs import log_bug

OPEN_BYTES: Final = 32_000_000
"""The bytes of profiles, decompressed, that a batch may hold; the rest stays in its streams."""
_IN_DOUBT: Final = "An earlier request got no sure answer: this event may have been delivered."


def ledgers_after(
    intents: Sequence[Intent], texts: Mapping[bytes, bytes | None], numbers: Numbers
) -> dict[bytes, LedgerText]:
    """Return, by digest, the ledgers after requests whose result nobody knows.

    Ledgers that can't be read are left as they are.
    """
    records, _ = unpack_all(texts)
    for intent in intents:
        for row in intent.deliveries:
            if row.digest not in records:
                continue
            audience, trigger = numbers.audience(row.audience), numbers.trigger(row.trigger)
            event = LedgerEvent(row.time_us, row.direction, trigger, audience, replays=row.replays)
            tried = with_tried(records[row.digest], event)
            records[row.digest] = with_whole_list(tried, row.time_us)
    return {digest: LedgerText.of(record) for digest, record in records.items()}


async def decode_batch(batch: Batch, deliveries: Sequence[Delivery], *, entries: int) -> None:
    """Decode the deliveries that were read for a batch."""
    audiences = {d.header.audience for d in deliveries if d.header.audience}
    await batch.numbers.learn(audiences, {d.trigger for d in deliveries})
    decoded = decode_deliveries(deliveries, batch)
    batch.take_in(deliveries, decoded, is_last=not is_full(deliveries, entries))


def decode_deliveries(deliveries: Sequence[Delivery], batch: Batch) -> list[Delivery]:
    """Decode deliveries. Unreadable ones die; those beyond `OPEN_BYTES` stay in their streams."""
    decoded: list[Delivery] = []
    size = 0
    numbers, known = batch.numbers, dict[tuple[str, str], tuple[int, int]]()
    for delivery in deliveries:
        if size > OPEN_BYTES:
            break
        if delivery.header is UNKNOWN_FORMAT:
            batch.stopped[delivery.trigger] = _why_unknown(delivery)
            continue
        if delivery.header.is_broken:
            message = "The entry can't be read: it is damaged."
            batch.fail(delivery, Death.UNREADABLE, message)
            continue
        try:
            text = decode_profile(delivery.profile)
        except PayloadRefused as error:
            batch.fail(delivery, Death.UNREADABLE, error.message)
            continue
        size += len(text)
        trigger, audience = delivery.trigger, delivery.header.audience
        numbered = known.get((trigger, audience))
        if numbered is None:
            numbered = (numbers.trigger(trigger), numbers.audience(audience))
            known[trigger, audience] = numbered
        delivery.text, delivery.superseded = text, ()
        delivery.loaded = batch.triggers[trigger]
        delivery.event = _ledger_event(delivery, *numbered)
        decoded.append(delivery)
    return batch.left(decoded)


def _why_unknown(delivery: Delivery) -> str:
    try:
        PROTECTION.unseal(delivery.profile, decode_header(delivery.header_text).digest)
    except FormatUnknown as error:
        return error.message
    raise Bug(f"The entry {delivery.position} has a format that is known.")


def unpack_ledgers(
    deliveries: Sequence[Delivery],
    texts: Mapping[bytes, bytes | None],
    batch: Batch,
) -> list[Delivery]:
    """Unpack the ledgers of a batch. If one is damaged, the events of its profile are dead.

    If another version wrote one, the triggers of its profile's events are stopped.
    """
    batch.records, unreadable = unpack_all(texts)
    damaged: dict[bytes, str] = {}
    for digest, error in unreadable.items():
        if not isinstance(error, FormatUnknown):
            damaged[digest] = log_bug(error, "ledger.unreadable", profile=digest.hex())
    left: list[Delivery] = []
    for delivery in deliveries:
        match unreadable.get(delivery.digest):
            case None:
                left.append(delivery)
            case FormatUnknown(message=why):
                batch.stopped[delivery.trigger] = why
            case _:
                message = f"The ledger of its profile can't be read. {damaged[delivery.digest]}"
                batch.fail(delivery, Death.UNREADABLE, message)
    return batch.left(left)


def _ledger_event(delivery: Delivery, trigger: int, audience: int) -> LedgerEvent:
    header = delivery.header
    is_change = header.direction is Direction.CHANGE
    return LedgerEvent(  # called for each event: names would take a quarter of its time
        header.time_us,
        header.direction,
        trigger,
        audience,
        header.state,
        header.repair,
        PROTECTION.checksum(delivery.text) if is_change else 0,
        header.replays,
        header.again,
    )


def ask_ledger(deliveries: Sequence[Delivery], batch: Batch) -> list[Delivery]:
    """Skip the deliveries that the ledger makes unnecessary, and return the others.

    If `on_ambiguous` says so, what may have been sent before becomes a dead letter.
    """
    left: list[Delivery] = []
    for delivery in deliveries:
        if skip_by_ledger(delivery, batch):
            continue
        record = batch.records[delivery.digest]
        if delivery.loaded.on_ambiguous == "dead_letter" and is_in_doubt(record, delivery.event):
            batch.fail(delivery, Death.AMBIGUOUS, _IN_DOUBT)
        else:
            left.append(delivery)
    return left


def skip_by_ledger(delivery: Delivery, batch: Batch) -> bool:
    """Skip a delivery that the ledger makes unnecessary, and say whether it does.

    A state event that says what is known already raises the ledger's time. It does so at once,
    because the events that are judged after it have to be compared with that time.
    """
    records = batch.records
    record = records[delivery.digest]
    reason = judge(record, delivery.event)
    if reason is None:
        return False
    tells = reason is Skip.ALREADY_THERE
    if tells:
        records[delivery.digest] = with_raised(record, delivery.event)
    batch.skipped.append(delivery.skip(reason, reason.value, tells=tells))
    return True


def contend(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Return the events of the batch that no other supersedes, each with those it supersedes."""
    rivals: dict[tuple[bytes, int], list[Delivery]] = {}
    for delivery in deliveries:
        rivals.setdefault((delivery.digest, delivery.event.audience), []).append(delivery)
    superseded: set[str] = set()
    for some in rivals.values() if len(rivals) < len(deliveries) else ():
        if len(some) > 1:
            for delivery, older in contest([(None, each.event, each) for each in some]):
                delivery.superseded = older
                superseded.update([each.position for each in older])
    return [delivery for delivery in deliveries if delivery.position not in superseded]


class Recognized:
    """The recognizer's answers about the people of a batch.

    Args:
        stables: The digest of the stable id by a delivery's position.
        answers: By stable id and identity, as the recognizer gave them.
    """

    def __init__(
        self, stables: Mapping[str, bytes], answers: Mapping[tuple[bytes, bytes], str]
    ) -> None:
        self._stables = stables
        self._answers = answers

    def stable_of(self, delivery: Delivery) -> str:
        """Return the digest (hex) of a delivery's stable id; "" = it has none."""
        return self._stables.get(delivery.position, b"").hex()

    def waits(self, delivery: Delivery) -> bool:
        """Say whether a delivery waits until somebody is renamed."""
        return self._answer(delivery) == WAITS

    def key_for(self, delivery: Delivery) -> str:
        """Return the key of the profile to which a delivery belongs; "" = it stays."""
        answer = self._answer(delivery)
        return "" if answer == WAITS else answer

    @property
    def is_quiet(self) -> bool:
        """Say whether no delivery of the batch has to wait or to be handed on."""
        return not any(self._answers.values())

    def _answer(self, delivery: Delivery) -> str:
        stable = self._stables.get(delivery.position)
        return self._answers.get((stable, delivery.header.digest), "") if stable else ""


NOTHING: Final = Recognized({}, {})


async def recognize(
    deliveries: Sequence[Delivery], forwards: Mapping[bytes, Forward], recognizer: Recognizer | None
) -> Recognized:
    """Ask the recognizer about the people of a batch, except those who are just being renamed."""
    if recognizer is None:
        return NOTHING
    stables: dict[str, bytes] = {}
    newest: dict[tuple[bytes, bytes], tuple[Sighting, str]] = {}
    for delivery in deliveries:
        forward = forwards.get(delivery.header.digest)
        if forward and forward.moving is not Moving.DONE:
            continue
        sighting = _sighting(delivery, forward, recognizer)
        if sighting is None:
            continue
        stables[delivery.position] = sighting.stable
        known = newest.get((sighting.stable, sighting.identity))
        if known is None or known[0].time_us < sighting.time_us:
            newest[sighting.stable, sighting.identity] = (sighting, delivery.trigger)
    if not newest:
        return NOTHING
    sightings = [sighting for sighting, _ in newest.values()]
    answers = await recognizer.see(sightings, [trigger for _, trigger in newest.values()])
    return Recognized(stables, dict(zip(newest, answers, strict=True)))


def _sighting(
    delivery: Delivery, forward: Forward | None, recognizer: Recognizer
) -> Sighting | None:
    """Return what a delivery tells of a stable id; None = nothing, or it can't be read."""
    header = delivery.header
    if header.is_broken:
        return None
    try:
        profile = orjson.loads(decode_profile(delivery.profile))
        value = stable_value(profile, recognizer.field)
        key = key_of(profile, recognizer.identity, header.digest)
    except (PayloadRefused, ValueError, AttributeError):
        return None
    if not value or key is None or "\n" in key:
        return None
    stable = stable_digest(recognizer.field, value)
    applies = forward is not None and forward.stable in ("", stable.hex())
    return Sighting(
        stable,
        header.digest,
        key,
        header.time_us,
        lasts=header.direction is Direction.ENTER,
        forward=forward.to if forward and applies else "",
        by_person=bool(forward and applies and not forward.stable),
    )

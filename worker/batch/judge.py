"""Decode a batch, ask the ledger, and pick the newest of competing events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Intent, LedgerText
from segrelay.worker.batch.read import is_full
from segrelay.worker.contract.events import (
    UNKNOWN_FORMAT,
    decode_header,
    decode_profile,
)
from segrelay.worker.contract.ledger import unpack_all
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.words import Death, Direction
from segrelay.worker.core.ledger import (
    LedgerEvent,
    contest,
    is_in_doubt,
    judge,
    with_raised,
    with_tried,
    with_whole_list,
)
from segrelay.worker.errors import Bug, FormatUnknown, PayloadRefused
from segrelay.worker.logs import log_bug

if TYPE_CHECKING:
    from segrelay.worker.adapters.redis.shared_keys import RedisNumbers

OPEN_BYTES: Final = 32_000_000
"""The bytes of profiles, decompressed, that a batch may hold; the rest stays in its streams."""
_NOT_WANTED: Final = "Its trigger has another direction or other audiences now."
_IN_DOUBT: Final = "An earlier request got no sure answer: this event may have been delivered."


def ledgers_after(
    intents: Sequence[Intent], texts: Mapping[bytes, bytes | None], numbers: RedisNumbers
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
        if delivery.is_unwanted:
            batch.fail(delivery, Death.UNWANTED, _NOT_WANTED)
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
    if reason.effects.updates_ledger:
        records[delivery.digest] = with_raised(record, delivery.event)
    batch.skipped.append(delivery.skip(reason, reason.value))
    return True


def contend(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Return the events of the batch that no other supersedes, each with those it supersedes."""
    about = ((each.digest, each.event.audience) for each in deliveries)
    events = [each.event for each in deliveries]
    going: list[Delivery] = []
    for delivery, older in contest(list(zip(about, events, deliveries, strict=True))):
        delivery.superseded = older
        going.append(delivery)
    return going

"""Step 4: decode a batch, ask the ledger, and pick the newest of competing events."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from worker.batch.batch import Batch, Numbers
from worker.batch.letters import Obituary
from worker.batch.parcel import Contender
from worker.batch.partition import Delivery, LedgerText, Note, Settled
from worker.batch.preparing.read import is_full
from worker.contract.events import UNKNOWN_FORMAT, UNREADABLE, decode_header, decode_profile
from worker.contract.ledger import Record, unpack_all
from worker.contract.words import Death, Direction, Skip
from worker.core.beats import contest
from worker.core.ledger import Fact, is_in_doubt, judge, with_raised, with_tried, with_whole_list
from worker.errors import Bug, FormatUnknown, PayloadRefused
from worker.logs import log_bug

OPEN_BYTES: Final = 32_000_000
"""The bytes of profiles, decompressed, that a batch may hold; the rest stays in its streams."""
_IN_DOUBT: Final = "An earlier request got no sure answer: this event may have been delivered."


def ledgers_after(
    notes: Sequence[Note], texts: Mapping[bytes, bytes | None], numbers: Numbers
) -> dict[bytes, LedgerText]:
    """Return, by digest, the ledgers after requests whose result nobody knows.

    Ledgers that can't be read are left as they are.
    """
    records, _ = unpack_all(texts)
    for note in notes:
        for row in note.deliveries:
            if row.digest not in records:
                continue
            audience, trigger = numbers.audience(row.audience), numbers.trigger(row.trigger)
            fact = Fact(audience, trigger, row.direction, row.time_us, replays=row.replays)
            tried = with_tried(records[row.digest], fact)
            records[row.digest] = with_whole_list(tried, row.time_us)
    return {digest: LedgerText.of(record) for digest, record in records.items()}


async def decode_batch(batch: Batch, deliveries: Sequence[Delivery], *, entries: int) -> None:
    """Decode the deliveries that were read for a batch."""
    audiences = {d.header.audience for d in deliveries if d.header.audience}
    await batch.numbers.learn(audiences, {d.trigger for d in deliveries})
    contenders = decode_deliveries(deliveries, batch)
    batch.take_in(deliveries, contenders, is_last=not is_full(deliveries, entries))


def decode_deliveries(deliveries: Sequence[Delivery], batch: Batch) -> list[Contender]:
    """Decode deliveries. Unreadable ones die; those beyond `OPEN_BYTES` stay in their streams."""
    contenders: list[Contender] = []
    size = 0
    for delivery in deliveries:
        if size > OPEN_BYTES:
            break
        if delivery.header is UNKNOWN_FORMAT:
            batch.stopped[delivery.trigger] = _why_unknown(delivery)
            continue
        try:
            profile = decode_profile(delivery.profile)
        except PayloadRefused as error:
            batch.deaths.append((delivery, Obituary(Death.UNREADABLE, error.message)))
            continue
        size += len(profile)
        if delivery.header is UNREADABLE:
            message = "The entry's header can't be read: it is damaged."
            batch.deaths.append((delivery, Obituary(Death.UNREADABLE, message)))
            continue
        contenders.append(Contender(delivery, _fact(delivery, profile, batch.numbers), profile))
    return batch.left(contenders)


def _why_unknown(delivery: Delivery) -> str:
    try:
        decode_header(delivery.header_text)
    except FormatUnknown as error:
        return error.message
    raise Bug(f"The entry {delivery.place} has a format that is known.")


def unpack_ledgers(
    contenders: Sequence[Contender],
    texts: Mapping[bytes, bytes | None],
    batch: Batch,
) -> list[Contender]:
    """Unpack the ledgers of a batch. If one is damaged, the events of its profile are dead.

    If another version wrote one, the triggers of its profile's events are stopped.
    """
    batch.state.records, unreadable = unpack_all(texts)
    damaged: dict[bytes, str] = {}
    for digest, error in unreadable.items():
        if not isinstance(error, FormatUnknown):
            damaged[digest] = log_bug(error, "ledger.unreadable", profile=digest.hex())
    left: list[Contender] = []
    for contender in contenders:
        digest, trigger = contender.delivery.header.digest, contender.delivery.trigger
        match unreadable.get(digest):
            case None:
                left.append(contender)
            case FormatUnknown(message=why):
                batch.stopped[trigger] = why
            case _:
                message = f"The ledger of its profile can't be read. {damaged[digest]}"
                obituary = Obituary(Death.UNREADABLE, message)
                batch.deaths.append((contender.delivery, obituary))
    return batch.left(left)


def _fact(delivery: Delivery, profile: bytes, numbers: Numbers) -> Fact:
    header = delivery.header
    return Fact(
        audience=numbers.audience(header.audience),
        trigger=numbers.trigger(delivery.trigger),
        direction=header.direction,
        time_us=header.time_us,
        state=header.state,
        repair=header.repair,
        profile_hash=zlib.crc32(profile) or 1 if header.direction is Direction.CHANGE else 0,
        replays=header.replays,
        again=header.again,
    )


def ask_ledger(contenders: Sequence[Contender], batch: Batch) -> list[Contender]:
    """Skip the deliveries that the ledger makes unnecessary, and return the others.

    If `on_ambiguous` says so, what may have been sent before becomes a dead letter.
    """
    left: list[Contender] = []
    for contender in contenders:
        delivery, fact = contender.delivery, contender.fact
        settled = skip_by_ledger(delivery, fact, batch.state.records)
        if settled:
            batch.skipped.append(settled)
        elif batch.routes[delivery.trigger].on_ambiguous == "dead_letter" and is_in_doubt(
            batch.state.records[delivery.header.digest], fact
        ):
            batch.deaths.append((delivery, Obituary(Death.AMBIGUOUS, _IN_DOUBT)))
        else:
            left.append(contender)
    return left


def skip_by_ledger(delivery: Delivery, fact: Fact, records: dict[bytes, Record]) -> Settled | None:
    """Return why the ledger wants a delivery skipped, or None.

    A state event that says what is known already raises the ledger's time. It does so at once,
    because the events that are judged after it have to be compared with that time.
    """
    record = records[delivery.header.digest]
    reason = judge(record, fact)
    if reason is None:
        return None
    if reason is not Skip.ALREADY_THERE:
        return Settled(delivery, reason, remark=reason.value)
    raised = with_raised(record, fact)
    records[delivery.header.digest] = raised
    return Settled(delivery, reason, tells=True, remark=reason.value)


def contend(contenders: Sequence[Contender]) -> list[Contender]:
    """Return the events of the batch that no other beats, each with those it beats."""
    if len({(c.delivery.header.digest, c.fact.audience) for c in contenders}) == len(contenders):
        return list(contenders)
    result = contest(
        [((c.delivery.header.digest, c.fact.audience), c.fact.claim, c) for c in contenders]
    )
    return [
        c._replace(losers=result.beaten_by.get(number, ())) for number, c in enumerate(result.going)
    ]

"""Conclude a request: do what follows from the verdict on its answer.

There is one function for each kind of answer. They also measure a request and the deliveries that
it made: what they add to the counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, assert_never

import orjson

from segrelay.worker.batch import halve
from segrelay.worker.batch.batch import Batch, Request
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.events import decode_profile, pack_profile
from segrelay.worker.contract.ledger import Item, Record, is_newer, standing, unpack_all
from segrelay.worker.contract.outcomes import (
    ACCEPTED,
    ANSWERED,
    ASKED,
    CARRIED,
    DELIVERY_BOUNDS,
    OCCURRED,
    REQUEST_BOUNDS,
    fields_of_times,
    label_of_status,
    prefix_of_delivery,
)
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.words import LIVE, Death, Direction, Skip
from segrelay.worker.core.backoff import Wait
from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TokenReplaced,
    TooLarge,
    Unreadable,
    Verdict,
)
from segrelay.worker.destinations.api import Answer
from segrelay.worker.errors import LeaseLost

NOTHING: Final = Settlement()


async def conclude(batch: Batch, request: Request, verdict: Verdict) -> Mapping[str, int]:
    """Carry out a verdict; returns how many deliveries succeeded, by trigger.

    If the lease was lost, repairs are published where the next holder delivered newer events.
    """
    unanswered = isinstance(verdict, Unreadable) or (
        isinstance(verdict, Failed) and verdict.possibly_applied
    )
    try:
        match verdict:
            case Accepted():
                return await _accepted(batch, request, verdict)
            case TooLarge(message) if len(request.deliveries) == 1:
                dying = request.deliveries[0].fail(Death.TOO_LARGE, message, request.answered)
                await _close(batch, request, Settlement(await batch.dead([dying])))
            case TooLarge():
                await _close(batch, request)
                batch.split(request)
            case BodyRefused(message, partly_applied=True):
                await _partly_refused(batch, request, message)
            case BodyRefused(message):
                await _close(batch, request)
                await halve.refuse(batch, request, message)
            case SlowDown() | AccessRefused() | TokenReplaced():
                await _close(batch, request)
                batch.again(request)
            case Failed(message) | Unreadable(message):
                await _failed(batch, request, message, possibly_applied=unanswered)
            case _ as never:
                assert_never(never)
    except LeaseLost:
        partly = isinstance(verdict, BodyRefused) and verdict.partly_applied
        if unanswered or partly or isinstance(verdict, Accepted):
            await repair(batch, request, in_doubt=unanswered)
        raise
    return {}


async def conclude_unfinished(batch: Batch, request: Request, message: str) -> None:
    """Leave open the intent of a request that we ended ourselves; this counts as no failure."""
    try:
        if request.trigger.on_ambiguous == "dead_letter":
            await _ambiguous(batch, request, message)
        else:
            await _settle_open(batch, request, NOTHING)
    except LeaseLost:
        await repair(batch, request, in_doubt=True)
        raise


async def _close(batch: Batch, request: Request, base: Settlement = NOTHING) -> None:
    """Settle a request with a sure answer, which closes its intent."""
    counts = _counts(batch, request)
    await batch.write(replace(base, intent_id=request.intent.intent_id, counts=counts))


def _counts(batch: Batch, request: Request, **more: int) -> Counter[str]:
    """Return what a request adds to the counts; the request counts for its first trigger."""
    counts = Counter(
        f"resent|{delivery.trigger}"
        for delivery in request.deliveries
        if _may_have_been_sent(batch, delivery)
    )
    shared, first = batch.state.identities_shared, request.triggers[0]
    for trigger in shared.keys() & set(request.triggers) if shared else ():
        counts[f"shared_identity|{trigger}"] = shared.pop(trigger)
    counts.update({f"{name}|{first}": n for name, n in more.items()})
    counts[f"requests|{first}"] = 1
    answer = request.answer
    told = label_of_status(answer.status) if isinstance(answer, Answer) else answer.kind.value
    counts.update({f"{ANSWERED}|{told}": 1, CARRIED: request.users})
    counts.update(fields_of_times(ASKED, REQUEST_BOUNDS, [request.elapsed_seconds]))
    return +counts


def _may_have_been_sent(batch: Batch, delivery: Delivery) -> bool:
    """Say whether an earlier request of a delivery got no sure answer."""
    items = batch.records[delivery.digest].items
    if not items:
        return False
    event = delivery.event
    item = items.get((event.audience, event.trigger))
    return item is not None and item.tried_us == event.time_us


async def _accepted(batch: Batch, request: Request, verdict: Accepted) -> Mapping[str, int]:
    state, answer, now_ms = batch.state, request.answered, batch.state.now_ms()
    # Counted before the records tell of this request: they say what had been sent before it.
    counts, refused, at = _counts(batch, request), verdict.refused, 0
    made: list[Delivery] = []
    settled: list[Delivery] = []
    failed: list[Delivery] = []
    apart: list[Delivery] = []
    for person in request.people:
        refusals: list[int] = []
        if refused:
            users = range(at, at + len(person[0].users))
            at, refusals = users.stop, [user for user in users if user in refused]
        if not refusals:
            made += person
            settled += [delivery.succeed(answer) for delivery in person]
            if len(person) > 1:
                person[-1].remark = f"{len(person)} deliveries shared one user object"
        elif len(person) > 1:
            # It is not known yet which of them Insider refuses.
            apart += person
        else:
            said = refused[refusals[0]]
            match verdict.reasons.get(refusals[0], Death.REFUSED):
                case Skip() as reason:
                    settled.append(person[0].skip(reason, f"{reason.value}: {said}", answer))
                case Death() as reason:
                    failed.append(person[0].fail(reason, said, answer))
    records: dict[bytes, Record] = {}
    reached: dict[str, bytes] = {}
    for delivery in made:
        digest = delivery.digest
        records[digest] = delivery.delivered_in(records.get(digest) or batch.records[digest])
        for name in delivery.sent.dropped:
            counts[f"dropped|{delivery.trigger}|{name}"] += 1
        for older in delivery.superseded:
            settled.append(older.skip(Skip.SUPERSEDED, "superseded in its batch"))
        if state.is_sampled(digest):
            known_by = delivery.loaded.api.known_by(delivery.shaped)
            reached[digest.hex()] = orjson.dumps([now_ms, known_by])
    counts.update(_times(batch, made, now_ms))
    dead = await batch.dead(failed)
    batch.records.update(records)
    await batch.write(
        Settlement(
            [*settled, *dead],
            intent_id=request.intent.intent_id,
            counts=counts,
            waits=dict.fromkeys(state.waits.keys() & set(request.triggers)),
            reached=reached,
        )
    )
    state.reach(reached)
    if apart:
        batch.put_back(apart, is_refused=True)
    state.went_through(request.triggers)
    delivered = Counter([delivery.trigger for delivery in made])
    for trigger in delivered:
        await batch.drain.streaks.broken(trigger)
    if delivered or not verdict.reasons:
        # Who is not wanted was refused all the same: it says nothing about the suspects.
        await halve.accept(batch, request)
    return delivered


def _times(batch: Batch, made: Iterable[Delivery], now_ms: int) -> Counter[str]:
    """Return counts of the times that deliveries took since their events and their acceptance.

    An event that a comparison made up has happened at no known time.
    """
    headers = [delivery.header for delivery in made]
    accepted = [(now_ms - header.accepted_ms) / 1_000 for header in headers]
    occurred = [now_ms / 1_000 - each.time_us / 1_000_000 for each in headers if not each.state]
    counts: Counter[str] = Counter()
    for since, seconds in ((ACCEPTED, accepted), (OCCURRED, occurred)):
        if seconds:
            prefix = prefix_of_delivery(batch.kind, since)
            counts.update(fields_of_times(prefix, DELIVERY_BOUNDS, seconds))
    return counts


async def _partly_refused(batch: Batch, request: Request, message: str) -> None:
    """Halve a request of which some users were taken, if these may be sent again.

    It is over: nothing of it takes effect later, and no other event has to wait for it.
    """
    if request.trigger.on_ambiguous == "dead_letter":
        await _ambiguous(batch, request, message, is_over=True)
        return
    await _settle_open(batch, request, NOTHING, is_over=True)
    await halve.refuse(batch, request, message)


async def _failed(batch: Batch, request: Request, message: str, *, possibly_applied: bool) -> None:
    if possibly_applied and request.trigger.on_ambiguous == "dead_letter":
        await _ambiguous(batch, request, message)
        return
    state, users = batch.state, len(request.deliveries)
    outcomes = [
        (each, state.after_failure(each, request.send_time, users=users, reason=message))
        for each in request.deliveries
    ]
    waits: dict[str, Wait | None] = dict.fromkeys(request.triggers)
    waits |= {each.trigger: outcome.wait for each, outcome in outcomes if outcome.wait}
    backoffs = {each.position: outcome.backoff for each, outcome in outcomes if outcome.backoff}
    failed = [each.fail(Death.FAILED, message) for each, outcome in outcomes if not outcome.backoff]
    settlement = Settlement(
        settled=await batch.dead(failed),
        waits=waits,
        backoffs=backoffs,
        retried=request.deliveries,
        retry_message=message,
    )
    if possibly_applied:
        await _settle_open(batch, request, settlement)
    else:
        await _close(batch, request, settlement)
    state.backoffs.update(backoffs)
    for trigger, wait in waits.items():
        state.set_wait(trigger, wait)
    # Triggers that wait send nothing more of the batch.
    batch.drop([trigger for trigger, wait in waits.items() if wait])


async def _ambiguous(
    batch: Batch, request: Request, message: str, *, is_over: bool = False
) -> None:
    """Dead-letter deliveries that may have been made, as `on_ambiguous` demands."""
    answer = request.answered if is_over else None
    failed = [each.fail(Death.AMBIGUOUS, message, answer) for each in request.deliveries]
    settlement = Settlement(await batch.dead(failed))
    await _settle_open(batch, request, settlement, is_over=is_over)
    if not is_over:
        batch.drop(request.triggers)


async def _settle_open(
    batch: Batch, request: Request, base: Settlement, *, is_over: bool = False
) -> None:
    """Settle a request that may have been applied; its intent stays open unless it is over."""
    intent = request.intent
    # Counted before `tried` is: it tells what had been sent before this request.
    counts = _counts(batch, request, unanswered=1)
    tried: dict[bytes, Record] = {}
    for delivery in request.deliveries:
        before = tried.get(delivery.digest) or batch.records[delivery.digest]
        tried[delivery.digest] = delivery.tried_in(before)
    batch.records.update(tried)
    open_seconds = 0.0 if is_over else batch.drain.late_seconds
    end_ms = await batch.write(
        replace(base, intent_id=intent.intent_id, open_seconds=open_seconds, counts=counts),
        tried=tried,
    )
    if end_ms:
        batch.state.keep_open(replace(intent, open_until_ms=end_ms))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def repair(batch: Batch, request: Request, *, in_doubt: bool) -> None:
    """Publish repairs after a request whose lease was taken while it was under way.

    Something newer of the other direction may have been delivered meanwhile, and this older request
    may have taken effect after it. Then the newest direction is published once more.

    Args:
        batch: Its lease is somebody else's.
        request: The request, which may have taken effect.
        in_doubt: The request has no sure answer: nothing of its profiles, the repairs included, may
            be sent before it can't take effect any more.
    """
    partition = batch.drain.partition
    if in_doubt:
        await partition.hold_back(request.intent, batch.drain.late_seconds)
    digests = [delivery.digest for delivery in request.deliveries]
    records, _ = unpack_all(dict(zip(digests, await partition.peek(digests), strict=True)))
    names = batch.drain.numbers.triggers()
    repairs = [
        _repair(delivery, names[trigger], item)
        for delivery in request.deliveries
        if delivery.digest in records
        for trigger, item in _undone(delivery, records[delivery.digest])
        if trigger in names
    ]
    if repairs:
        await partition.accept(repairs)


def _undone(delivery: Delivery, record: Record) -> Iterator[tuple[int, Item]]:
    """Yield the items of the newest direction, if that is not what a late delivery told."""
    header, audience = delivery.header, delivery.event.audience
    direction, time_us = standing(record, audience) or (Direction.CHANGE, 0)
    if Direction.CHANGE in (direction, header.direction) or direction is header.direction:
        return
    if is_newer(time_us, direction, header.time_us, header.direction):
        for trigger, item in record.about(audience):
            if item.direction is direction and item.delivered_us:
                yield trigger, item


def _repair(delivery: Delivery, trigger: str, item: Item) -> NewDelivery:
    """Return a trigger's last delivery as a repair; its own time supersedes nothing newer.

    Its profile has direction and time of that delivery in its one segment event.
    """
    event, time_us = item.direction.value, item.delivered_us
    header = delivery.header._replace(
        direction=item.direction, time_us=time_us, state=False, skip_hook=True, repair=True
    )
    profile: dict[str, Any] = orjson.loads(decode_profile(delivery.profile))
    old = (profile.get("segment_events") or [{}])[0]
    at = (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds")
    others = {key: value for key, value in old.items() if key not in set(Direction)}
    turned = {**others, "event": event, event: at.replace("+00:00", "Z")}
    packed = pack_profile(orjson.dumps({**profile, "segment_events": [turned]}))
    return NewDelivery(LIVE, trigger, header, packed)

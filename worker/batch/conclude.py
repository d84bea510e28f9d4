"""Conclude a request: do what follows from the verdict on its answer.

There is one function for each kind of answer. They also measure a request and the deliveries that
it made: what they add to the counts.

Bodies that were refused are halved, until it is clear which deliveries are to blame.
A delivery that is refused alone is to blame only if others of its trigger go through, in requests
that were taken after its own began. If none do in this batch, it steps aside, and is dead after
five such refusals where what others were answered lately tells that it is to blame. If nothing goes
through, the refusal says nothing about this delivery: the trigger waits, and nothing becomes a dead
letter. Where a successful answer lists an error of the one result that was sent, the destination
has worked on it: then it is to blame if its trigger was taken in the last ten minutes.

A halving that is not finished when the batch ends is remembered as the width of the deliveries'
next request. So it does not start anew each time at a slow destination or a low rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, assert_never

import orjson
import structlog

from segrelay.worker.batch.batch import EPOCH, Batch, Request
from segrelay.worker.batch.delivery import Delivery, Failure
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
from segrelay.worker.core.backoff import (
    RECENT_SECONDS,
    Backoff,
    Wait,
    delay_seconds,
    is_to_blame,
)
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

SUSPECTS_AT_MOST: Final = 8
"""The number of single refusals without any success after which no delivery is to blame."""
LONGEST_WAIT_SECONDS: Final = 10.0
"""The longest wait of a trigger whose users are refused: a bad event must not hold up the next."""
WAITS_WORTH_TELLING: Final = 5
_SUCCESS: Final = range(200, 300)
LOG: Final = structlog.get_logger()
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
                await refuse(batch, request, message)
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
    counts.update({f"{ANSWERED}|{told}": 1, CARRIED: request.user_count})
    counts.update(fields_of_times(ASKED, REQUEST_BOUNDS, [request.elapsed_seconds]))
    return +counts


def _may_have_been_sent(batch: Batch, delivery: Delivery) -> bool:
    """Say whether an earlier request of a delivery got no sure answer."""
    items = batch.records[delivery.digest].items
    if not items:
        return False
    item = items.get(delivery.event.key)
    return item is not None and item.tried_us == delivery.header.time_us


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
        await went_through(batch, request)
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
    await refuse(batch, request, message)


async def _failed(batch: Batch, request: Request, message: str, *, possibly_applied: bool) -> None:
    if possibly_applied and request.trigger.on_ambiguous == "dead_letter":
        await _ambiguous(batch, request, message)
        return
    users = len(request.deliveries)
    waits: dict[str, Wait | None] = dict.fromkeys(request.triggers)
    backoffs: dict[Delivery, Backoff | None] = {}
    for each in request.deliveries:
        outcome = batch.state.after_failure(each, request.send_time, users=users, reason=message)
        backoffs[each] = outcome.backoff
        waits[each.trigger] = outcome.wait or waits[each.trigger]
        if not outcome.backoff:
            each.fail(Death.FAILED, message)
    settle = _settle_open if possibly_applied else _close
    await _postpone(batch, backoffs, waits, message, partial(settle, batch, request))


async def _postpone(
    batch: Batch,
    backoffs: Mapping[Delivery, Backoff | None],
    waits: Mapping[str, Wait | None],
    message: str,
    settle: Callable[[Settlement], Awaitable[object]],
) -> None:
    """Settle that deliveries are tried again later; those without a backoff die.

    Triggers that wait send nothing more of the batch.
    """
    state = batch.state
    kept = {each.position: backoff for each, backoff in backoffs.items() if backoff}
    settlement = Settlement(
        settled=await batch.dead([each for each, backoff in backoffs.items() if not backoff]),
        waits=waits,
        backoffs=kept,
        retried=list(backoffs),
        retry_message=message,
    )
    await settle(settlement)
    state.backoffs.update(kept)
    for trigger, wait in waits.items():
        state.set_wait(trigger, wait)
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


async def refuse(batch: Batch, request: Request, message: str) -> None:
    """Halve a refused body; a delivery refused alone is suspect until another goes through."""
    if len(request.deliveries) > 1:
        if len(request.triggers) == 1:
            batch.apart.update(request.triggers)
        batch.split(request)
        return
    (trigger,), (delivery,) = request.triggers, request.deliveries
    delivery.fail(Death.REFUSED, message, request.answered)
    suspects = batch.suspects.setdefault(trigger, [])
    suspects.append(request)
    if await _others_are_taken(batch, trigger, request):
        await _dead_letter(batch, trigger)
    elif trigger in batch.state.waits:
        await _acquit(batch, [trigger])
    elif len(suspects) >= SUSPECTS_AT_MOST:
        await _stop(batch, trigger)


async def _others_are_taken(batch: Batch, trigger: str, request: Request) -> bool:
    """Say whether others of a trigger go through, so that the one in a request is to blame."""
    taken_seconds = batch.taken_seconds.get(trigger, -1.0)
    if taken_seconds >= request.begun_seconds:
        return True
    if not (request.answered and request.answered.status in _SUCCESS):
        return False
    if taken_seconds >= 0:
        return True
    taken_ago = (await batch.drain.gate.answers([trigger]))[trigger].taken_seconds_ago
    return taken_ago is not None and taken_ago <= RECENT_SECONDS


async def went_through(batch: Batch, request: Request) -> None:
    """Remember that a request was accepted: the suspects of its triggers are to blame, and die."""
    for trigger in request.triggers:
        batch.taken_seconds[trigger] = batch.drain.clock.seconds()
        await _dead_letter(batch, trigger)


async def finish(batch: Batch) -> None:
    """Postpone the remaining suspects, and store how far each halving has come."""
    halves = [
        (delivery, len(part.deliveries))
        for part in batch.parts
        if part.is_refused
        for delivery in part.deliveries
    ]
    halved = {delivery.trigger for delivery, _ in halves}
    await _acquit(batch, [name for name in batch.suspects if name not in halved])
    # During a halving it is not known yet whether anything goes through.
    alone = [(each.deliveries[0], 1) for some in batch.suspects.values() for each in some]
    known = batch.state.backoffs
    backoffs = {
        delivery.position: replace(known.get(delivery.position) or Backoff(width), width=width)
        for delivery, width in (*halves, *alone)
        if delivery.trigger not in batch.state.paused
    }
    if backoffs:
        await batch.write(Settlement(backoffs=backoffs))
        known.update(backoffs)


async def _stop(batch: Batch, trigger: str) -> None:
    """Stop halving a body of which nothing was accepted; its trigger is paused or waits."""
    failures = [_failure(suspect) for suspect in batch.suspects[trigger]]
    is_one_cause = len({failure.cause for failure in failures}) == 1
    has_left = any(d.trigger == trigger for part in batch.parts for d in part.deliveries)
    if is_one_cause and batch.drain.triggers[trigger].api.max_users > 1 and has_left:
        del batch.suspects[trigger]
        await batch.drain.streaks.pause(trigger, failures[-1])
        batch.leave(trigger)
    else:
        await _acquit(batch, [trigger])


async def _dead_letter(batch: Batch, trigger: str) -> None:
    suspects = batch.suspects.pop(trigger, [])
    if suspects:
        dead = await batch.dead([suspect.deliveries[0] for suspect in suspects])
        await batch.write(Settlement(settled=dead))


async def _acquit(batch: Batch, triggers: Iterable[str]) -> None:
    """Postpone suspects; if nothing of their trigger goes through, the whole trigger waits."""
    for trigger in triggers:
        suspects = batch.suspects.pop(trigger, [])
        if suspects and trigger not in batch.state.paused:
            await _step_aside(batch, trigger, suspects)


async def _step_aside(batch: Batch, trigger: str, suspects: list[Request]) -> None:
    is_alone = len(suspects) == 1 and await _is_to_blame(batch, trigger, suspects[0])
    state, random = batch.state, batch.drain.jitter.random
    deliveries = [suspect.deliveries[0] for suspect in suspects]
    messages = [_failure(suspect).message for suspect in suspects]
    outcomes = [
        state.after_failure(
            delivery,
            suspect.send_time,
            users=1,
            reason=message,
            others_are_taken=is_alone,
            is_refused=True,
        )
        for delivery, suspect, message in zip(deliveries, suspects, messages, strict=True)
    ]
    wait = outcomes[0].wait
    if wait and all(outcome.wait for outcome in outcomes):
        # The destination answers, so other deliveries may well go through soon.
        latest_ms = state.now_ms() + round(1000 * LONGEST_WAIT_SECONDS * random())
        wait = replace(wait, not_before_ms=min(wait.not_before_ms, latest_ms))
    else:
        wait = None
    backoffs: dict[Delivery, Backoff | None] = {}
    for delivery, outcome, message in zip(deliveries, outcomes, messages, strict=True):
        backoff = backoffs[delivery] = outcome.backoff
        if backoff:
            # It is sent alone next, and later after each refusal: so it neither holds up those that
            # come after it nor is sent again and again.
            delay_ms = round(1000 * delay_seconds(backoff.failures, random()))
            not_before_ms = backoff.not_before_ms or state.now_ms() + delay_ms
            backoffs[delivery] = replace(
                backoff, width=1, not_before_ms=not_before_ms, refusal=message
            )
    await _postpone(batch, backoffs, {trigger: wait}, messages[0], batch.write)
    if wait and wait.attempts >= WAITS_WORTH_TELLING:
        LOG.warning("trigger.waits", trigger=trigger, attempts=wait.attempts, reason=messages[0])


async def _is_to_blame(batch: Batch, trigger: str, suspect: Request) -> bool:
    """Say whether a suspect is to blame: recent answers show that others are accepted."""
    answers = await batch.drain.gate.answers(batch.drain.triggers)
    own = answers.pop(trigger)
    position, status = suspect.deliveries[0].position, _failure(suspect).status
    return is_to_blame(position, status, own, answers.values())


def _failure(suspect: Request) -> Failure:
    failure = suspect.deliveries[0].failure
    assert failure is not None
    return failure


async def repair(batch: Batch, request: Request, *, in_doubt: bool) -> None:
    """Publish repairs after a request whose lease was taken while it was under way.

    Something newer of the other direction may have been delivered meanwhile, and this older request
    may have taken effect after it. Then the newest direction is published once more.

    Args:
        batch: The batch, whose lease somebody else holds by now.
        request: The request, which may have taken effect.
        in_doubt: True if the request has no sure answer: nothing of its profiles, the repairs
            included, may be sent before it can't take effect any more.
    """
    partition = batch.drain.partition
    if in_doubt:
        await partition.hold_back(request.intent, batch.drain.late_seconds)
    digests = [delivery.digest for delivery in request.deliveries]
    records, _ = unpack_all(dict(zip(digests, await partition.peek(digests), strict=True)))
    names = batch.drain.numbers.triggers()
    repairs = [
        _repair(delivery, trigger, item)
        for delivery in request.deliveries
        if delivery.digest in records
        for trigger, item in undone(delivery, records[delivery.digest], names)
    ]
    if repairs:
        await partition.accept(repairs)


def undone(
    delivery: Delivery, record: Record, names: Mapping[int, str]
) -> Iterator[tuple[str, Item]]:
    """Yield the items of the newest direction, if that is not what a late delivery told.

    Args:
        delivery: A delivery of a request that may have taken effect late.
        record: The ledger of its profile.
        names: The names of triggers by their numbers; items of other triggers are left out.
    """
    header, (audience, _) = delivery.header, delivery.event.key
    direction, time_us = standing(record, audience) or (Direction.CHANGE, 0)
    if Direction.CHANGE in (direction, header.direction) or direction is header.direction:
        return
    if is_newer(time_us, direction, header.time_us, header.direction):
        for trigger, item in record.about(audience):
            if item.direction is direction and item.delivered_us and trigger in names:
                yield names[trigger], item


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
    at = (EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds")
    others = {key: value for key, value in old.items() if key not in set(Direction)}
    turned = {**others, "event": event, event: at.replace("+00:00", "Z")}
    packed = pack_profile(orjson.dumps({**profile, "segment_events": [turned]}))
    return NewDelivery(LIVE, trigger, header, packed)

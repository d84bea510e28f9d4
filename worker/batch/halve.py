"""Halves bodies that were refused, until it is clear which deliveries are to blame.

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

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import structlog

from segrelay.worker.batch.batch import Batch, Request
from segrelay.worker.batch.delivery import Delivery, Failure
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.words import Death
from segrelay.worker.core.backoff import (
    RECENT_SECONDS,
    Backoff,
    delay_seconds,
    is_to_blame,
)

SUSPECTS_AT_MOST: Final = 8
"""The number of single refusals without any success after which no delivery is to blame."""
LONGEST_WAIT_SECONDS: Final = 10.0
"""The longest wait of a trigger whose users are refused: a bad event must not hold up the next."""
WAITS_WORTH_TELLING: Final = 5
_SUCCESS: Final = range(200, 300)
LOG: Final = structlog.get_logger()


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


async def accept(batch: Batch, request: Request) -> None:
    """Dead-letter the suspects of a request's triggers, since this request was accepted."""
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
    failed: list[Delivery] = []
    backoffs = {}
    for delivery, outcome, message in zip(deliveries, outcomes, messages, strict=True):
        backoff = outcome.backoff
        if backoff is None:
            failed.append(delivery)
            continue
        # It is sent alone next, and later after each refusal: so it neither holds up those that
        # come after it nor is sent again and again.
        delay_ms = round(1000 * delay_seconds(backoff.failures, random()))
        not_before_ms = backoff.not_before_ms or state.now_ms() + delay_ms
        backoffs[delivery.position] = replace(
            backoff, width=1, not_before_ms=not_before_ms, refusal=message
        )
    await batch.write(
        Settlement(
            settled=await batch.dead(failed),
            waits={trigger: wait},
            backoffs=backoffs,
            retried=deliveries,
            retry_message=messages[0],
        )
    )
    state.backoffs.update(backoffs)
    state.set_wait(trigger, wait)
    if wait:
        batch.drop([trigger])
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

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

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog

from segrelay.worker.batch.batch import Batch, Request, Settler
from segrelay.worker.batch.delivery import Delivery, Failure, LoadedTrigger
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.words import Death
from segrelay.worker.core.backoff import (
    RECENT_SECONDS,
    Backoff,
    delay_seconds,
    is_to_blame,
)

if TYPE_CHECKING:
    from segrelay.worker.adapters.redis.gate import RedisGate

SUSPECTS_AT_MOST: Final = 8
"""The number of single refusals without any success after which no delivery is to blame."""
LONGEST_WAIT_SECONDS: Final = 10.0
"""The longest wait of a trigger whose users are refused: a bad event must not hold up the next."""
WAITS_WORTH_TELLING: Final = 5
_SUCCESS: Final = range(200, 300)
LOG: Final = structlog.get_logger()


@dataclass(slots=True)
class Refusals:
    """Halves the refused bodies of one batch.

    Attributes:
        _suspects: By trigger, the requests whose one delivery was refused.
    """

    batch: Batch
    settler: Settler
    gate: RedisGate
    _suspects: dict[str, list[Request]] = field(default_factory=dict)
    _taken_seconds: dict[str, float] = field(default_factory=dict)

    async def refused(self, request: Request, message: str) -> None:
        """Halve a refused body; a delivery refused alone is suspect until another goes through."""
        if len(request.deliveries) > 1:
            if len(request.triggers) == 1:
                self.batch.apart.update(request.triggers)
            self.batch.split(request)
            return
        (trigger,), (delivery,) = request.triggers, request.deliveries
        delivery.fail(Death.REFUSED, message, request.answered)
        suspects = self._suspects.setdefault(trigger, [])
        suspects.append(request)
        if await self._others_are_taken(trigger, request):
            await self._dead_letter(trigger)
        elif trigger in self.batch.state.waits:
            await self._acquit([trigger])
        elif len(suspects) >= SUSPECTS_AT_MOST:
            await self._stop(trigger, request.trigger)

    async def _others_are_taken(self, trigger: str, request: Request) -> bool:
        """Say whether others of a trigger go through, so that the one in a request is to blame."""
        if self._taken_seconds.get(trigger, -1.0) >= request.begun_seconds:
            return True
        if not (request.answered and request.answered.status in _SUCCESS):
            return False
        if trigger in self._taken_seconds:
            return True
        taken_ago = (await self.gate.answers([trigger]))[trigger].taken_seconds_ago
        return taken_ago is not None and taken_ago <= RECENT_SECONDS

    async def part_taken(self, request: Request) -> None:
        """Dead-letter the suspects of a request's triggers, since this request was accepted."""
        for trigger in request.triggers:
            self._taken_seconds[trigger] = self.batch.state.clock.seconds()
            await self._dead_letter(trigger)

    async def finish(self) -> None:
        """Postpone the remaining suspects, and store how far each halving has come."""
        halves = list(self.batch.halves_left())
        halved = {delivery.trigger for delivery, _ in halves}
        await self._acquit([name for name in self._suspects if name not in halved])
        # During a halving it is not known yet whether anything goes through.
        alone = [(_delivery(each), 1) for suspects in self._suspects.values() for each in suspects]
        known = self.batch.state.backoffs
        backoffs = {
            delivery.position: replace(known.get(delivery.position) or Backoff(width), width=width)
            for delivery, width in (*halves, *alone)
            if delivery.trigger not in self.batch.state.paused
        }
        if backoffs:
            await self.settler.write(Settlement(backoffs=backoffs))
            known.update(backoffs)

    async def _stop(self, trigger: str, loaded: LoadedTrigger) -> None:
        """Stop halving a body of which nothing was accepted; its trigger is paused or waits."""
        causes = {_failure(suspect).cause for suspect in self._suspects[trigger]}
        if len(causes) == 1 and loaded.api.max_users > 1 and self.batch.has_left(trigger):
            failure = _failure(self._suspects.pop(trigger)[-1])
            await self.settler.streaks.pause(trigger, failure)
            self.batch.leave(trigger)
        else:
            await self._acquit([trigger])

    async def _dead_letter(self, trigger: str) -> None:
        suspects = self._suspects.pop(trigger, [])
        if suspects:
            dead = await self.settler.dead([_delivery(suspect) for suspect in suspects])
            await self.settler.write(Settlement(settled=dead))

    async def _acquit(self, triggers: list[str]) -> None:
        """Postpone suspects; if nothing of their trigger goes through, the whole trigger waits."""
        for trigger in triggers:
            suspects = self._suspects.pop(trigger, [])
            if suspects and trigger not in self.batch.state.paused:
                await self._step_aside(trigger, suspects)

    async def _step_aside(self, trigger: str, suspects: list[Request]) -> None:
        is_alone = len(suspects) == 1 and await self._is_to_blame(trigger, suspects[0])
        state = self.batch.state
        outcomes = [
            state.after_failure(
                _delivery(suspect),
                suspect.send_time,
                users=1,
                reason=_failure(suspect).message,
                others_are_taken=is_alone,
                is_refused=True,
            )
            for suspect in suspects
        ]
        wait = outcomes[0].wait
        if wait and all(outcome.wait for outcome in outcomes):
            # The destination answers, so other deliveries may well go through soon.
            latest_ms = state.now_ms() + round(1000 * LONGEST_WAIT_SECONDS * state.jitter.random())
            wait = replace(wait, not_before_ms=min(wait.not_before_ms, latest_ms))
        else:
            wait = None
        failed: list[Delivery] = []
        backoffs = {}
        for suspect, outcome in zip(suspects, outcomes, strict=True):
            delivery = _delivery(suspect)
            if outcome.backoff is None:
                failed.append(delivery)
            else:
                message = _failure(suspect).message
                backoffs[delivery.position] = self._alone(outcome.backoff, message)
        await self.settler.write(
            Settlement(
                settled=await self.settler.dead(failed),
                waits={trigger: wait},
                backoffs=backoffs,
                retried=[_delivery(suspect) for suspect in suspects],
                retry_message=_failure(suspects[0]).message,
            )
        )
        state.backoffs.update(backoffs)
        state.set_wait(trigger, wait)
        if wait:
            self.batch.drop([trigger])
        if wait and wait.attempts >= WAITS_WORTH_TELLING:
            message = _failure(suspects[0]).message
            LOG.warning("trigger.waits", trigger=trigger, attempts=wait.attempts, reason=message)

    async def _is_to_blame(self, trigger: str, suspect: Request) -> bool:
        """Say whether a suspect is to blame: recent answers show that others are accepted."""
        answers = await self.gate.answers(self.batch.triggers)
        own = answers.pop(trigger)
        position, status = _delivery(suspect).position, _failure(suspect).status
        return is_to_blame(position, status, own, answers.values())

    def _alone(self, backoff: Backoff, refusal: str) -> Backoff:
        """Return the backoff of a suspect: it is sent alone next, and later after each refusal.

        So it neither holds up those that come after it nor is sent again and again.
        """
        not_before_ms = backoff.not_before_ms
        if not not_before_ms:
            seconds = delay_seconds(backoff.failures, self.batch.state.jitter.random())
            not_before_ms = self.batch.state.now_ms() + round(1000 * seconds)
        return replace(backoff, width=1, not_before_ms=not_before_ms, refusal=refusal)


def _delivery(suspect: Request) -> Delivery:
    return suspect.deliveries[0]


def _failure(suspect: Request) -> Failure:
    failure = suspect.deliveries[0].failure
    assert failure is not None
    return failure

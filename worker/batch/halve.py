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

import random
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import structlog

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.dead_letters import Failure
from segrelay.worker.batch.delivery import Parcel, Request, Route, Sent
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.batch.settle import Settler
from segrelay.worker.contract.words import Death
from segrelay.worker.core.backoff import (
    RECENT_SECONDS,
    AfterFailure,
    Backoff,
    Wait,
    delay_seconds,
    is_to_blame,
)
from segrelay.worker.core.gate import Gate, Slot
from segrelay.worker.destinations.api import Answer

SUSPECTS_AT_MOST: Final = 8
"""The number of single refusals without any success after which no delivery is to blame."""
LONGEST_WAIT_SECONDS: Final = 10.0
"""The longest wait of a trigger whose users are refused: a bad event must not hold up the next."""
WAITS_WORTH_TELLING: Final = 5
_SUCCESS: Final = range(200, 300)
LOG: Final = structlog.get_logger()


class _Suspect(NamedTuple):
    """A delivery that was refused alone in its request."""

    parcel: Parcel
    failure: Failure
    slot: Slot


@dataclass(slots=True)
class Refusals:
    """Halves the refused bodies of one batch."""

    batch: Batch
    settler: Settler
    gate: Gate
    jitter: random.Random
    _suspects: dict[str, list[_Suspect]] = field(default_factory=dict)
    _taken_seconds: dict[str, float] = field(default_factory=dict)

    async def refused(self, sent: Sent, message: str) -> None:
        """Halve a refused body; a delivery refused alone is suspect until another goes through."""
        request = sent.request
        if len(request.parcels) > 1:
            if len(request.triggers) == 1:
                self.batch.apart.update(request.triggers)
            self.batch.split(request)
            return
        (trigger,), (parcel,) = request.triggers, request.parcels
        failure = self.settler.failure(parcel, Death.REFUSED, message, sent.answer)
        suspects = self._suspects.setdefault(trigger, [])
        suspects.append(_Suspect(parcel, failure, sent.slot))
        if await self._others_are_taken(trigger, sent):
            await self._bury(trigger)
        elif trigger in self.batch.state.waits:
            await self._acquit([trigger])
        elif len(suspects) >= SUSPECTS_AT_MOST:
            await self._stop(trigger, parcel.route)

    async def _others_are_taken(self, trigger: str, sent: Sent) -> bool:
        """Say whether others of a trigger go through, so that the one in a request is to blame."""
        if self._taken_seconds.get(trigger, -1.0) >= sent.begun_seconds:
            return True
        if not (isinstance(sent.answer, Answer) and sent.answer.status in _SUCCESS):
            return False
        if trigger in self._taken_seconds:
            return True
        taken_ago = (await self.gate.answers([trigger]))[trigger].taken_seconds_ago
        return taken_ago is not None and taken_ago <= RECENT_SECONDS

    async def part_taken(self, request: Request) -> None:
        """Dead-letter the suspects of a request's triggers, since this request was accepted."""
        for trigger in request.triggers:
            self._taken_seconds[trigger] = self.batch.state.clock.seconds()
            await self._bury(trigger)

    async def finish(self) -> None:
        """Postpone the remaining suspects, and store how far each halving has come."""
        widths = dict(self.batch.halves_left())
        halved = {parcel.delivery.trigger for parcel in widths}
        await self._acquit([name for name in self._suspects if name not in halved])
        # During a halving it is not known yet whether anything goes through.
        widths |= {suspect.parcel: 1 for each in self._suspects.values() for suspect in each}
        backoffs = {
            parcel.delivery.place: self._narrowed(parcel, width)
            for parcel, width in widths.items()
            if parcel.delivery.trigger not in self.batch.state.paused
        }
        if backoffs:
            await self.settler.write(Settlement(backoffs=backoffs))
            self.batch.state.backoffs.update(backoffs)

    async def _stop(self, trigger: str, route: Route) -> None:
        """Stop halving a body of which nothing was accepted; its trigger is paused or waits."""
        causes = {suspect.failure.cause for suspect in self._suspects[trigger]}
        if len(causes) == 1 and route.api.max_users > 1 and self.batch.has_left(trigger):
            failure = self._suspects.pop(trigger)[-1].failure
            await self.settler.streaks.pause(trigger, failure)
            self.batch.leave(trigger)
        else:
            await self._acquit([trigger])

    async def _bury(self, trigger: str) -> None:
        suspects = self._suspects.pop(trigger, [])
        deaths = [(suspect.parcel.delivery, suspect.failure) for suspect in suspects]
        if deaths:
            await self.settler.write(Settlement(settled=await self.settler.dead(deaths)))

    async def _acquit(self, triggers: list[str]) -> None:
        """Postpone suspects; if nothing of their trigger goes through, the whole trigger waits."""
        for trigger in triggers:
            suspects = self._suspects.pop(trigger, [])
            if suspects and trigger not in self.batch.state.paused:
                await self._step_aside(trigger, suspects)

    async def _step_aside(self, trigger: str, suspects: list[_Suspect]) -> None:
        is_alone = len(suspects) == 1 and await self._is_to_blame(trigger, suspects[0])
        outcomes = [self._after_refusal(each, is_to_blame=is_alone) for each in suspects]
        others_go_through = any(outcome.wait is None for outcome in outcomes)
        wait = None if others_go_through else self._short(outcomes[0].wait)
        deaths = []
        backoffs = {}
        for suspect, outcome in zip(suspects, outcomes, strict=True):
            if outcome.backoff is None:
                deaths.append((suspect.parcel.delivery, suspect.failure))
            else:
                backoffs[suspect.parcel.delivery.place] = self._alone(
                    outcome.backoff, suspect.failure.message
                )
        remark = f"retry: {suspects[0].failure.message}"
        await self.settler.write(
            Settlement(
                settled=await self.settler.dead(deaths),
                waits={trigger: wait},
                backoffs=backoffs,
                history=[self.settler.line(s.parcel.delivery, "retry", remark) for s in suspects],
            )
        )
        self.batch.state.backoffs.update(backoffs)
        self.batch.state.set_wait(trigger, wait)
        if wait:
            self.batch.drop([trigger])
            self._log(trigger, wait, suspects[0].failure)

    def _short(self, wait: Wait | None) -> Wait | None:
        """Shorten a wait: the destination answers, so other deliveries may well go through."""
        if wait is None:
            return None
        latest_ms = self.batch.state.now_ms() + round(
            1000 * LONGEST_WAIT_SECONDS * self.jitter.random()
        )
        return replace(wait, not_before_ms=min(wait.not_before_ms, latest_ms))

    async def _is_to_blame(self, trigger: str, suspect: _Suspect) -> bool:
        """Say whether a suspect is to blame: recent answers show that others are accepted."""
        answers = await self.gate.answers(self.batch.routes)
        own = answers.pop(trigger)
        place, status = suspect.parcel.delivery.place, suspect.failure.status
        return is_to_blame(place, status, own, answers.values())

    def _after_refusal(self, suspect: _Suspect, *, is_to_blame: bool) -> AfterFailure:
        return self.batch.state.after_failure(
            suspect.parcel.delivery,
            suspect.slot,
            users=1,
            jitter=self.jitter.random(),
            reason=suspect.failure.message,
            others_are_taken=is_to_blame,
        )

    def _alone(self, backoff: Backoff, refusal: str) -> Backoff:
        """Return the backoff of a suspect: it is sent alone next, and later after each refusal.

        So it neither holds up those that come after it nor is sent again and again.
        """
        not_before_ms = backoff.not_before_ms
        if not not_before_ms:
            delay_ms = round(1000 * delay_seconds(backoff.failures, self.jitter.random()))
            not_before_ms = self.batch.state.now_ms() + delay_ms
        return replace(backoff, width=1, not_before_ms=not_before_ms, refusal=refusal)

    def _narrowed(self, parcel: Parcel, width: int) -> Backoff:
        known = self.batch.state.backoffs.get(parcel.delivery.place)
        return replace(known, width=width) if known else Backoff(width)

    def _log(self, trigger: str, wait: Wait, failure: Failure) -> None:
        if wait.attempts >= WAITS_WORTH_TELLING:
            LOG.warning(
                "trigger.waits",
                trigger=trigger,
                attempts=wait.attempts,
                reason=failure.message,
            )

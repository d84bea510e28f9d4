"""Conclude a request: do what follows from the verdict on its answer.

There is one method for each kind of answer. It also measures a request and the deliveries that
it made: what they add to the counts.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, assert_never

import orjson

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.dead_letters import Failure
from segrelay.worker.batch.delivery import Packed, Parcel, Request, Sent
from segrelay.worker.batch.halve import Refusals
from segrelay.worker.batch.partition import Delivery, Intent, Partition, Settled, Settlement
from segrelay.worker.batch.repair import repair
from segrelay.worker.batch.settle import Settler
from segrelay.worker.contract.counts import (
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
from segrelay.worker.contract.keys import split_stream_name
from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.words import Death, Skip, kind_of_lane
from segrelay.worker.core.backoff import AfterFailure, Wait
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
from segrelay.worker.destinations.sending import NoAnswer
from segrelay.worker.errors import LeaseLost


def measures_of_request(sent: Sent) -> dict[str, int]:
    """Return a request's counts: its answer, its user objects, and the time until the answer."""
    answer = sent.answer
    told = label_of_status(answer.status) if isinstance(answer, Answer) else answer.kind.value
    return {
        f"{ANSWERED}|{told}": 1,
        CARRIED: sent.request.users,
        **fields_of_times(ASKED, REQUEST_BOUNDS, [sent.elapsed_seconds]),
    }


def measures_of_deliveries(settled: Iterable[Settled], now_ms: int) -> dict[str, int]:
    """Return counts of the times that deliveries took since their events and their acceptance.

    An event that a comparison made up has happened at no known time.
    """
    by_stream: dict[str, tuple[list[float], list[float]]] = {}
    for outcome in settled:
        if outcome.reason is not None:
            continue
        delivery = outcome.delivery
        times = by_stream.get(delivery.stream)
        if times is None:
            times = by_stream[delivery.stream] = ([], [])
        accepted, occurred = times
        header = delivery.header
        accepted.append((now_ms - header.accepted_ms) / 1_000)
        if not header.state:
            occurred.append(now_ms / 1_000 - header.time_us / 1_000_000)
    counts: Counter[str] = Counter()
    for stream, (accepted, occurred) in by_stream.items():
        kind = kind_of_lane(split_stream_name(stream)[0])
        for since, seconds in ((ACCEPTED, accepted), (OCCURRED, occurred)):
            if seconds:
                prefix = prefix_of_delivery(kind, since)
                counts.update(fields_of_times(prefix, DELIVERY_BOUNDS, seconds))
    return counts


SHARED_NAMED: Final = 20
"""At most this many of the deliveries that shared a user object are named in the history."""


@dataclass(slots=True)
class _Outcomes:
    """The outcomes of a request that the destination accepted, with what follows from them.

    Args:
        now_ms: When the answer was read, by Redis' clock.
        counts: What is added to the counts: fields that were left out, and measures.
        delivered: Deliveries by trigger.
        apart: Parcels that shared a user object which was refused.
        history: Lines about user objects that were shared.
    """

    now_ms: int
    settled: list[Settled] = field(default_factory=list)
    deaths: list[tuple[Delivery, Failure]] = field(default_factory=list)
    records: dict[bytes, Record] = field(default_factory=dict)
    reached: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    apart: list[Parcel] = field(default_factory=list)
    history: list[bytes] = field(default_factory=list)
    answer: Answer | None = None


@dataclass(slots=True)
class Conclusion:
    """Carries out the verdicts about the requests of one batch."""

    batch: Batch
    partition: Partition
    settler: Settler
    refusals: Refusals
    jitter: random.Random
    late_seconds: float

    async def obey(self, sent: Sent, verdict: Verdict) -> Mapping[str, int]:
        """Carry out a verdict; returns how many deliveries succeeded, by trigger."""
        request, intent = sent.request, sent.intent
        unanswered = isinstance(verdict, Unreadable) or (
            isinstance(verdict, Failed) and verdict.possibly_applied
        )
        partly = isinstance(verdict, BodyRefused) and verdict.partly_applied
        applied = unanswered or partly or isinstance(verdict, Accepted)
        async with self._repairing(request, intent if unanswered else None, applied=applied):
            match verdict:
                case Accepted(refused):
                    return await self._accepted(sent, refused)
                case TooLarge(message):
                    await self._too_large(sent, message)
                case BodyRefused(message, partly_applied=True):
                    await self._partly_refused(sent, message)
                case BodyRefused(message):
                    await self.settler.write(self._closing(sent))
                    await self.refusals.refused(sent, message)
                case SlowDown() | AccessRefused() | TokenReplaced():
                    await self.settler.write(self._closing(sent))
                    self.batch.again(request)
                case Failed(message) | Unreadable(message):
                    await self._failed(sent, message, possibly_applied=unanswered)
                case _ as never:
                    assert_never(never)
        return {}

    async def unfinished(self, sent: Sent, message: str) -> None:
        """Leave open the intent of a request that we ended ourselves; this counts as no failure."""
        async with self._repairing(sent.request, sent.intent, applied=True):
            if sent.request.parcels[0].route.on_ambiguous == "dead_letter":
                await self._ambiguous(sent, message)
            else:
                await self._settle_open(sent, Settlement(), possibly_applied=True)

    @contextlib.asynccontextmanager
    async def _repairing(
        self, request: Request, in_doubt: Intent | None, *, applied: bool
    ) -> AsyncIterator[None]:
        """If the lease was lost, publish repairs where the next holder delivered newer events."""
        try:
            yield
        except LeaseLost:
            if applied:
                await repair(
                    self.partition,
                    request.parcels,
                    names=self.batch.numbers.triggers(),
                    in_doubt=in_doubt,
                    late_seconds=self.late_seconds,
                )
            raise

    def _closing(
        self,
        sent: Sent,
        settled: Sequence[Settled] = (),
        counts: Mapping[str, int] = MappingProxyType({}),
        **more: object,
    ) -> Settlement:
        """Return a settlement that closes the intent of a request with a sure answer."""
        return Settlement(
            settled=settled,
            intent_id=sent.intent.intent_id,
            counts={**self._counts(sent), **counts},
            **more,  # type: ignore[arg-type]
        )

    def _counts(self, sent: Sent, **more: int) -> Counter[str]:
        """Return what a request adds to the counts; the request counts for its first trigger."""
        request = sent.request
        counts = Counter(
            f"resent|{parcel.delivery.trigger}"
            for parcel in request.parcels
            if self._may_have_been_sent(parcel)
        )
        for trigger in request.triggers:
            counts[f"shared_identity|{trigger}"] = self.batch.state.identities_shared.pop(
                trigger, 0
            )
        counts.update({f"{name}|{request.triggers[0]}": n for name, n in more.items()})
        counts[f"requests|{request.triggers[0]}"] = 1
        counts.update(measures_of_request(sent))
        return +counts

    def _may_have_been_sent(self, parcel: Parcel) -> bool:
        """Say whether an earlier request of a parcel got no sure answer."""
        fact = parcel.fact
        item = self.batch.state.records[parcel.digest].items.get((fact.audience, fact.trigger))
        return item is not None and item.tried_us == fact.time_us

    async def _accepted(self, sent: Sent, refused: Mapping[int, str]) -> Mapping[str, int]:
        request, answer = sent.request, sent.answer
        outcomes, index = _Outcomes(self.batch.state.now_ms()), 0
        outcomes.answer = answer if isinstance(answer, Answer) else None
        for packed in request.packed:
            users = range(index, index + len(packed.users))
            index = users.stop
            refusal = next((refused[i] for i in users if i in refused), None) if refused else None
            self._add_outcomes(packed, refusal, answer, outcomes)
        dead = await self.settler.dead(outcomes.deaths)
        waits_over = dict.fromkeys(self.batch.state.waits.keys() & set(request.triggers))
        outcomes.counts.update(measures_of_deliveries(outcomes.settled, outcomes.now_ms))
        closing = self._closing(
            sent,
            [*outcomes.settled, *dead],
            counts=outcomes.counts,
            waits=waits_over,
            reached=outcomes.reached,
            history=outcomes.history,
        )
        self.batch.state.records.update(outcomes.records)
        await self.settler.write(closing)
        if outcomes.apart:
            self.batch.put_back(outcomes.apart, is_refused=True)
        self.batch.state.went_through(request.triggers)
        for trigger in outcomes.delivered:
            await self.settler.streaks.broken(trigger)
        await self.refusals.part_taken(request)
        return outcomes.delivered

    def _add_outcomes(
        self, packed: Packed, refusal: str | None, answer: Answer | NoAnswer, to: _Outcomes
    ) -> None:
        """Add the outcomes of the deliveries that went to one person."""
        if refusal is None:
            if packed.is_shared:
                to.history.append(self._shared(packed))
            for parcel in packed.members:
                self._add_delivered(parcel, to)
        elif packed.is_shared:
            # It is not known yet which of them Insider refuses.
            to.apart += packed.members
        else:
            to.deaths += (
                (parcel.delivery, self.settler.failure(parcel, Death.REFUSED, refusal, answer))
                for parcel in packed.members
            )

    def _add_delivered(self, parcel: Parcel, to: _Outcomes) -> None:
        """Add a delivery that the destination accepted, and those of its batch that it beat."""
        state, trigger = self.batch.state, parcel.delivery.trigger
        before = to.records.get(parcel.digest) or state.records[parcel.digest]
        to.records[parcel.digest] = parcel.delivered_in(before)
        to.delivered[trigger] += 1
        for name in parcel.sent.dropped:
            to.counts[f"dropped|{trigger}|{name}"] += 1
        to.settled.append(Settled(parcel.delivery, tells=True, answer=to.answer))
        to.settled += (
            Settled(superseded.delivery, Skip.SUPERSEDED, remark="superseded in its batch")
            for superseded in parcel.superseded
        )
        if state.is_sampled(parcel.digest):
            to.reached[parcel.digest.hex()] = orjson.dumps(
                [to.now_ms, parcel.route.api.known_by(parcel.shaped)]
            )

    def _shared(self, packed: Packed) -> bytes:
        """Return the line of history that says which deliveries shared a user object."""
        deliveries = [parcel.delivery for parcel in packed.members]
        named = ", ".join(f"{d.header.audience} ({d.trigger})" for d in deliveries[:SHARED_NAMED])
        more = ", ..." if len(deliveries) > SHARED_NAMED else ""
        remark = f"{len(deliveries)} deliveries shared one user object: {named}{more}"
        return self.settler.line(deliveries[-1], "delivered", remark)

    async def _partly_refused(self, sent: Sent, message: str) -> None:
        """Halve a request of which some users were taken, if these may be sent again.

        It is over: nothing of it takes effect later, and no other event has to wait for it.
        """
        if sent.request.parcels[0].route.on_ambiguous == "dead_letter":
            await self._ambiguous(sent, message, is_over=True)
            return
        await self._settle_open(sent, Settlement(), possibly_applied=True, is_over=True)
        await self.refusals.refused(sent, message)

    async def _too_large(self, sent: Sent, message: str) -> None:
        request = sent.request
        if len(request.parcels) > 1:
            await self.settler.write(self._closing(sent))
            self.batch.split(request)
            return
        parcel = request.parcels[0]
        failure = self.settler.failure(parcel, Death.TOO_LARGE, message, sent.answer)
        dead = await self.settler.dead([(parcel.delivery, failure)])
        await self.settler.write(self._closing(sent, dead))

    async def _failed(self, sent: Sent, message: str, *, possibly_applied: bool) -> None:
        request = sent.request
        if possibly_applied and request.parcels[0].route.on_ambiguous == "dead_letter":
            await self._ambiguous(sent, message)
            return
        outcomes = {
            parcel: self._after_failure(parcel, sent, message) for parcel in request.parcels
        }
        waits: dict[str, Wait | None] = dict.fromkeys(request.triggers)
        waits |= {
            p.delivery.trigger: outcome.wait for p, outcome in outcomes.items() if outcome.wait
        }
        backoffs = {
            parcel.delivery.place: outcome.backoff
            for parcel, outcome in outcomes.items()
            if outcome.backoff
        }
        remark = f"retry: {message}"
        await self._settle_open(
            sent,
            Settlement(
                settled=await self._dead(outcomes, message),
                waits=waits,
                backoffs=backoffs,
                history=[self.settler.line(p.delivery, "retry", remark) for p in request.parcels],
            ),
            possibly_applied=possibly_applied,
        )
        self.batch.state.backoffs.update(backoffs)
        self._wait(waits)

    def _wait(self, waits: Mapping[str, Wait | None]) -> None:
        """Apply settled waits to this drain: triggers that wait send nothing more of the batch."""
        for trigger, wait in waits.items():
            self.batch.state.set_wait(trigger, wait)
        self.batch.drop([trigger for trigger, wait in waits.items() if wait])

    async def _dead(self, outcomes: Mapping[Parcel, AfterFailure], message: str) -> list[Settled]:
        """Return the deaths of the parcels that may not be tried again."""
        dead = [parcel for parcel, outcome in outcomes.items() if outcome.backoff is None]
        deaths = [(p.delivery, self.settler.failure(p, Death.FAILED, message, None)) for p in dead]
        return await self.settler.dead(deaths)

    def _after_failure(self, parcel: Parcel, sent: Sent, message: str) -> AfterFailure:
        return self.batch.state.after_failure(
            parcel.delivery,
            sent.slot,
            users=len(sent.request.parcels),
            jitter=self.jitter.random(),
            reason=message,
        )

    async def _ambiguous(self, sent: Sent, message: str, *, is_over: bool = False) -> None:
        """Dead-letter deliveries that may have been made, as `on_ambiguous` demands."""
        request = sent.request
        answer = sent.answer if is_over else None
        deaths = [
            (parcel.delivery, self.settler.failure(parcel, Death.AMBIGUOUS, message, answer))
            for parcel in request.parcels
        ]
        dead = [self.settler.death(delivery, failure) for delivery, failure in deaths]
        settlement = Settlement(settled=dead)
        await self._settle_open(sent, settlement, possibly_applied=True, is_over=is_over)
        if not is_over:
            self.batch.drop(request.triggers)

    async def _settle_open(
        self, sent: Sent, base: Settlement, *, possibly_applied: bool, is_over: bool = False
    ) -> None:
        """Settle a failed request; if it may still take effect, its intent stays open."""
        request, intent = sent.request, sent.intent
        stays_open = possibly_applied and not is_over
        # Counted before `tried` is: it tells what had been sent before this request.
        counts = self._counts(sent, unanswered=int(possibly_applied))
        tried: dict[bytes, Record] = {}
        for parcel in request.parcels if possibly_applied else ():
            before = tried.get(parcel.digest) or self.batch.state.records[parcel.digest]
            tried[parcel.digest] = parcel.tried_in(before)
        self.batch.state.records.update(tried)
        end_ms = await self.settler.write(
            replace(
                base,
                intent_id=intent.intent_id,
                open_seconds=self.late_seconds if stays_open else 0.0,
                counts=counts,
            ),
            tried=tried,
        )
        if stays_open and end_ms:
            opened = Intent(intent.intent_id, intent.deliveries, end_ms)
            self.batch.state.keep_open(opened)

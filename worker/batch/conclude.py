"""Conclude a request: do what follows from the verdict on its answer.

There is one method for each kind of answer. It also measures a request and the deliveries that
it made: what they add to the counts.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, assert_never

import orjson

from segrelay.worker.batch.batch import Batch, Request, Settler
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.halve import Refusals
from segrelay.worker.batch.partition import Intent, Settlement
from segrelay.worker.contract.events import decode_profile, pack_profile
from segrelay.worker.contract.keys import split_stream_name
from segrelay.worker.contract.ledger import Item, Record, is_newer, unpack_all
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
from segrelay.worker.contract.words import LIVE, Death, Direction, Skip, kind_of_lane
from segrelay.worker.core.backoff import Wait
from segrelay.worker.core.ledger import LedgerEvent, supersedes
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

if TYPE_CHECKING:
    from segrelay.worker.adapters.redis.partition import RedisPartition


def measures_of_request(request: Request) -> dict[str, int]:
    """Return a request's counts: its answer, its user objects, and the time until the answer."""
    answer = request.answer
    told = label_of_status(answer.status) if isinstance(answer, Answer) else answer.kind.value
    return {
        f"{ANSWERED}|{told}": 1,
        CARRIED: request.users,
        **fields_of_times(ASKED, REQUEST_BOUNDS, [request.elapsed_seconds]),
    }


def measures_of_deliveries(settled: Iterable[Delivery], now_ms: int) -> dict[str, int]:
    """Return counts of the times that deliveries took since their events and their acceptance.

    An event that a comparison made up has happened at no known time.
    """
    kinds: dict[str, tuple[list[float], list[float]]] = {}
    of_streams: dict[str, tuple[list[float], list[float]]] = {}
    for delivery in settled:
        if delivery.reason is not None:
            continue
        times = of_streams.get(delivery.stream)
        if times is None:
            kind = kind_of_lane(split_stream_name(delivery.stream)[0])
            times = of_streams[delivery.stream] = kinds.setdefault(kind, ([], []))
        accepted, occurred = times
        header = delivery.header
        accepted.append((now_ms - header.accepted_ms) / 1_000)
        if not header.state:
            occurred.append(now_ms / 1_000 - header.time_us / 1_000_000)
    counts: Counter[str] = Counter()
    for kind, (accepted, occurred) in kinds.items():
        for since, seconds in ((ACCEPTED, accepted), (OCCURRED, occurred)):
            if seconds:
                prefix = prefix_of_delivery(kind, since)
                counts.update(fields_of_times(prefix, DELIVERY_BOUNDS, seconds))
    return counts


@dataclass(slots=True)
class _Outcomes:
    """The outcomes of a request that the destination accepted, with what follows from them.

    Args:
        now_ms: The time when the answer was read, by Redis' clock.
        counts: Additions to the counts: fields that were left out, and measures.
        delivered: Deliveries by trigger.
        apart: Deliveries that shared a user object which was refused.
    """

    now_ms: int
    settled: list[Delivery] = field(default_factory=list)
    failed: list[Delivery] = field(default_factory=list)
    records: dict[bytes, Record] = field(default_factory=dict)
    reached: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    apart: list[Delivery] = field(default_factory=list)


@dataclass(slots=True)
class Conclusion:
    """Carries out the verdicts about the requests of one batch."""

    batch: Batch
    partition: RedisPartition
    settler: Settler
    refusals: Refusals
    late_seconds: float

    async def obey(self, request: Request, verdict: Verdict) -> Mapping[str, int]:
        """Carry out a verdict; returns how many deliveries succeeded, by trigger."""
        unanswered = isinstance(verdict, Unreadable) or (
            isinstance(verdict, Failed) and verdict.possibly_applied
        )
        partly = isinstance(verdict, BodyRefused) and verdict.partly_applied
        applied = unanswered or partly or isinstance(verdict, Accepted)
        async with self._repairing(request, in_doubt=unanswered, applied=applied):
            match verdict:
                case Accepted():
                    return await self._accepted(request, verdict)
                case TooLarge(message):
                    await self._too_large(request, message)
                case BodyRefused(message, partly_applied=True):
                    await self._partly_refused(request, message)
                case BodyRefused(message):
                    await self.settler.write(self._closing(request))
                    await self.refusals.refused(request, message)
                case SlowDown() | AccessRefused() | TokenReplaced():
                    await self.settler.write(self._closing(request))
                    self.batch.again(request)
                case Failed(message) | Unreadable(message):
                    await self._failed(request, message, possibly_applied=unanswered)
                case _ as never:
                    assert_never(never)
        return {}

    async def unfinished(self, request: Request, message: str) -> None:
        """Leave open the intent of a request that we ended ourselves; this counts as no failure."""
        async with self._repairing(request, in_doubt=True, applied=True):
            if request.trigger.on_ambiguous == "dead_letter":
                await self._ambiguous(request, message)
            else:
                await self._settle_open(request, Settlement(), possibly_applied=True)

    @contextlib.asynccontextmanager
    async def _repairing(
        self, request: Request, *, in_doubt: bool, applied: bool
    ) -> AsyncIterator[None]:
        """If the lease was lost, publish repairs where the next holder delivered newer events."""
        try:
            yield
        except LeaseLost:
            if applied:
                await repair(
                    self.partition,
                    request.deliveries,
                    names=self.batch.numbers.triggers(),
                    in_doubt=request.intent if in_doubt else None,
                    late_seconds=self.late_seconds,
                )
            raise

    def _closing(
        self,
        request: Request,
        settled: Sequence[Delivery] = (),
        counts: Mapping[str, int] = MappingProxyType({}),
        **more: object,
    ) -> Settlement:
        """Return a settlement that closes the intent of a request with a sure answer."""
        return Settlement(
            settled=settled,
            intent_id=request.intent.intent_id,
            counts={**self._counts(request), **counts},
            **more,  # type: ignore[arg-type]
        )

    def _counts(self, request: Request, **more: int) -> Counter[str]:
        """Return what a request adds to the counts; the request counts for its first trigger."""
        counts = Counter(
            f"resent|{delivery.trigger}"
            for delivery in request.deliveries
            if self._may_have_been_sent(delivery)
        )
        shared = self.batch.state.identities_shared
        for trigger in shared.keys() & set(request.triggers) if shared else ():
            counts[f"shared_identity|{trigger}"] = shared.pop(trigger)
        counts.update({f"{name}|{request.triggers[0]}": n for name, n in more.items()})
        counts[f"requests|{request.triggers[0]}"] = 1
        counts.update(measures_of_request(request))
        return +counts

    def _may_have_been_sent(self, delivery: Delivery) -> bool:
        """Say whether an earlier request of a delivery got no sure answer."""
        items = self.batch.records[delivery.digest].items
        if not items:
            return False
        event = delivery.event
        item = items.get((event.audience, event.trigger))
        return item is not None and item.tried_us == event.time_us

    async def _accepted(self, request: Request, verdict: Accepted) -> Mapping[str, int]:
        outcomes, index = _Outcomes(self.batch.state.now_ms()), 0
        refused, reasons = verdict.refused, verdict.reasons
        answer = request.answered
        for person in request.people:
            refusal = None
            if refused:
                users = range(index, index + len(person[0].users))
                index = users.stop
                refusal = next(
                    ((reasons.get(i, Death.REFUSED), refused[i]) for i in users if i in refused),
                    None,
                )
            self._add_outcomes(person, refusal, answer, outcomes)
        dead = await self.settler.dead(outcomes.failed)
        waits_over = dict.fromkeys(self.batch.state.waits.keys() & set(request.triggers))
        outcomes.counts.update(measures_of_deliveries(outcomes.settled, outcomes.now_ms))
        closing = self._closing(
            request,
            [*outcomes.settled, *dead],
            counts=outcomes.counts,
            waits=waits_over,
            reached=outcomes.reached,
        )
        self.batch.records.update(outcomes.records)
        await self.settler.write(closing)
        self.batch.state.reach(outcomes.reached)
        if outcomes.apart:
            self.batch.put_back(outcomes.apart, is_refused=True)
        self.batch.state.went_through(request.triggers)
        for trigger in outcomes.delivered:
            await self.settler.streaks.broken(trigger)
        if outcomes.delivered or not verdict.reasons:
            # Who is not wanted was refused all the same: it says nothing about the suspects.
            await self.refusals.part_taken(request)
        return outcomes.delivered

    def _add_outcomes(
        self,
        person: tuple[Delivery, ...],
        refusal: tuple[Skip | Death, str] | None,
        answer: Answer | None,
        to: _Outcomes,
    ) -> None:
        """Add the outcomes of the deliveries that went to one person."""
        match refusal:
            case None:
                for delivery in person:
                    self._add_delivered(delivery, answer, to)
                if len(person) > 1:
                    person[-1].remark = f"{len(person)} deliveries shared one user object"
            case _ if len(person) > 1:
                # It is not known yet which of them Insider refuses.
                to.apart += person
            case Skip() as reason, said:
                to.settled.append(person[0].skip(reason, f"{reason.value}: {said}", answer))
            case Death() as reason, said:
                to.failed.append(person[0].fail(reason, said, answer))

    def _add_delivered(self, delivery: Delivery, answer: Answer | None, to: _Outcomes) -> None:
        """Add a delivery that the destination accepted, and those that it supersedes."""
        state, trigger, digest = self.batch.state, delivery.trigger, delivery.digest
        before = to.records.get(digest) or self.batch.records[digest]
        to.records[digest] = delivery.delivered_in(before)
        to.delivered[trigger] += 1
        for name in delivery.sent.dropped:
            to.counts[f"dropped|{trigger}|{name}"] += 1
        to.settled.append(delivery.succeed(answer))
        for older in delivery.superseded:
            to.settled.append(older.skip(Skip.SUPERSEDED, "superseded in its batch"))
        if state.is_sampled(digest):
            api = delivery.loaded.api
            to.reached[digest.hex()] = orjson.dumps([to.now_ms, api.known_by(delivery.shaped)])

    async def _partly_refused(self, request: Request, message: str) -> None:
        """Halve a request of which some users were taken, if these may be sent again.

        It is over: nothing of it takes effect later, and no other event has to wait for it.
        """
        if request.trigger.on_ambiguous == "dead_letter":
            await self._ambiguous(request, message, is_over=True)
            return
        await self._settle_open(request, Settlement(), possibly_applied=True, is_over=True)
        await self.refusals.refused(request, message)

    async def _too_large(self, request: Request, message: str) -> None:
        if len(request.deliveries) > 1:
            await self.settler.write(self._closing(request))
            self.batch.split(request)
            return
        failed = request.deliveries[0].fail(Death.TOO_LARGE, message, request.answered)
        await self.settler.write(self._closing(request, await self.settler.dead([failed])))

    async def _failed(self, request: Request, message: str, *, possibly_applied: bool) -> None:
        if possibly_applied and request.trigger.on_ambiguous == "dead_letter":
            await self._ambiguous(request, message)
            return
        state, users = self.batch.state, len(request.deliveries)
        outcomes = [
            (each, state.after_failure(each, request.send_time, users=users, reason=message))
            for each in request.deliveries
        ]
        waits: dict[str, Wait | None] = dict.fromkeys(request.triggers)
        waits |= {each.trigger: outcome.wait for each, outcome in outcomes if outcome.wait}
        backoffs = {each.position: outcome.backoff for each, outcome in outcomes if outcome.backoff}
        failed = [
            each.fail(Death.FAILED, message) for each, outcome in outcomes if not outcome.backoff
        ]
        await self._settle_open(
            request,
            Settlement(
                settled=await self.settler.dead(failed),
                waits=waits,
                backoffs=backoffs,
                retried=request.deliveries,
                retry_message=message,
            ),
            possibly_applied=possibly_applied,
        )
        state.backoffs.update(backoffs)
        for trigger, wait in waits.items():
            state.set_wait(trigger, wait)
        # Triggers that wait send nothing more of the batch.
        self.batch.drop([trigger for trigger, wait in waits.items() if wait])

    async def _ambiguous(self, request: Request, message: str, *, is_over: bool = False) -> None:
        """Dead-letter deliveries that may have been made, as `on_ambiguous` demands."""
        answer = request.answered if is_over else None
        failed = [each.fail(Death.AMBIGUOUS, message, answer) for each in request.deliveries]
        settlement = Settlement(settled=await self.settler.dead(failed))
        await self._settle_open(request, settlement, possibly_applied=True, is_over=is_over)
        if not is_over:
            self.batch.drop(request.triggers)

    async def _settle_open(
        self, request: Request, base: Settlement, *, possibly_applied: bool, is_over: bool = False
    ) -> None:
        """Settle a failed request; if it may still take effect, its intent stays open."""
        intent = request.intent
        stays_open = possibly_applied and not is_over
        # Counted before `tried` is: it tells what had been sent before this request.
        counts = self._counts(request, unanswered=int(possibly_applied))
        tried: dict[bytes, Record] = {}
        for delivery in request.deliveries if possibly_applied else ():
            before = tried.get(delivery.digest) or self.batch.records[delivery.digest]
            tried[delivery.digest] = delivery.tried_in(before)
        self.batch.records.update(tried)
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


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def repair(
    partition: RedisPartition,
    deliveries: Sequence[Delivery],
    *,
    names: dict[int, str],
    in_doubt: Intent | None,
    late_seconds: float,
) -> int:
    """Publish repairs after a request whose lease was taken while it was under way.

    Something newer of the other direction may have been delivered meanwhile, and this older request
    may have taken effect after it. Then the newest direction is published once more.

    Args:
        partition: Its lease is somebody else's.
        deliveries: The deliveries that the request carried.
        names: Triggers of this destination by their number in the ledger.
        in_doubt: The intent of a request without a sure answer; None = the answer is sure. In
            doubt, nothing of its profiles, the repairs included, may be sent before it can't take
            effect any more.
        late_seconds: The length of that time.

    Returns:
        How many repairs were published.
    """
    if in_doubt:
        await partition.hold_back(in_doubt, late_seconds)
    texts = await partition.peek([delivery.digest for delivery in deliveries])
    digests = [delivery.digest for delivery in deliveries]
    records, _ = unpack_all(dict(zip(digests, texts, strict=True)))
    repairs = [
        new
        for delivery in deliveries
        if delivery.digest in records
        for new in _repairs(delivery, records[delivery.digest], names)
    ]
    if repairs:
        await partition.accept(repairs)
    return len(repairs)


def _repairs(delivery: Delivery, record: Record, names: dict[int, str]) -> list[NewDelivery]:
    newest = _newest(delivery, record)
    if newest is None or newest.direction is delivery.event.direction:
        return []
    return [
        _repair(delivery, names[trigger], item)
        for trigger, item in record.about(delivery.event.audience)
        if item.direction is newest.direction and item.delivered_us and trigger in names
    ]


def _repair(delivery: Delivery, trigger: str, item: Item) -> NewDelivery:
    """Return a trigger's last delivery as a repair; its own time supersedes nothing newer."""
    header = delivery.header._replace(
        direction=item.direction,
        time_us=item.delivered_us,
        state=False,
        skip_hook=True,
        repair=True,
    )
    return NewDelivery(LIVE, trigger, header, pack_profile(_turned(delivery, item)))


def _newest(delivery: Delivery, record: Record) -> Item | None:
    """Return the newest item that supersedes what the request carried."""
    best: Item | None = None
    for trigger, item in record.about(delivery.event.audience):
        event = LedgerEvent(item.delivered_us, item.direction, trigger)
        if not item.delivered_us or not supersedes(event, delivery.event):
            continue
        if best is None or is_newer(
            item.delivered_us, item.direction, best.delivered_us, best.direction
        ):
            best = item
    return best


def _turned(delivery: Delivery, newest: Item) -> bytes:
    """Return the profile with direction and time of the newest event in its one segment event."""
    profile: dict[str, Any] = orjson.loads(decode_profile(delivery.profile))
    old = (profile.get("segment_events") or [{}])[0]
    event = newest.direction.value
    at = (_EPOCH + timedelta(microseconds=newest.delivered_us)).isoformat(timespec="microseconds")
    others = {key: value for key, value in old.items() if key not in {d.value for d in Direction}}
    turned = {**others, "event": event, event: at.replace("+00:00", "Z")}
    return orjson.dumps({**profile, "segment_events": [turned]})

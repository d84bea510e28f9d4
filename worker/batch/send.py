"""Carry one request: book its send time, write the intent, send, read the answer, settle.

Watches the lease and the signal to stop while requests are under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, Self
from urllib.parse import unquote

import structlog

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.conclude import Conclusion
from segrelay.worker.batch.delivery import Request, Sent
from segrelay.worker.batch.pack import Packer, enveloped
from segrelay.worker.batch.partition import IntendedDelivery, Intent, Partition, Settlement
from segrelay.worker.batch.render import RowRenderer
from segrelay.worker.batch.settle import Settler
from segrelay.worker.batch.state import Clock
from segrelay.worker.contract.words import Death
from segrelay.worker.core.gate import APART, LIVE_FIRST, Closed, Gate, Open, Slot
from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    Unreadable,
    Verdict,
    quoting_nothing,
)
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.sending import NoAnswer, OutgoingRequest, Sender, Silence
from segrelay.worker.errors import ConfigurationInvalid, SegrelayError
from segrelay.worker.logs import log_bug

LOOK_SECONDS: Final = 0.2


class Lease(Protocol):
    """Keeps a lease renewed while it is entered, from a thread of its own."""

    def is_valid(self) -> bool:
        """Say whether the lease holds, by a clock that runs on while the process is stopped."""

    def __enter__(self) -> Self:
        """Begin to renew the lease."""

    def __exit__(self, *_: object) -> None:
        """Stop renewing."""


@dataclass(slots=True)
class Stop:
    """The signal to stop: whether and when this process got it.

    Args:
        told_at_seconds: By the drain's clock; 0 = it was not.
    """

    told_at_seconds: float = 0.0

    @property
    def is_told(self) -> bool:
        """Say whether nothing new may begin."""
        return self.told_at_seconds > 0


@dataclass(slots=True)
class InterruptWatch:
    """Checks every 0.2 s, as long as it is entered, whether requests have to end.

    Args:
        grace_seconds: For how long requests may be under way after the signal to stop.
        cut: Set when they must end: the lease was lost, or that time is over.
        stopping: Set when nothing new may begin.
    """

    lease: Lease
    stop: Stop
    clock: Clock
    grace_seconds: float
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _watching: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Say whether nothing new may begin."""
        return self.stopping.is_set() or self.cut.is_set()

    def may_send(self) -> bool:
        """Say whether a request may still be written."""
        return self.lease.is_valid() and not self.cut.is_set()

    async def __aenter__(self) -> Self:
        """Begin to watch lease and signal."""
        self._watching = asyncio.ensure_future(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop watching."""
        assert self._watching is not None
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching

    async def _look(self) -> None:
        while True:
            if self.stop.is_told:
                self.stopping.set()
                if self.clock.seconds() >= self.stop.told_at_seconds + self.grace_seconds:
                    self.cut.set()
            if not self.lease.is_valid():
                self.cut.set()
            await self.clock.sleep(LOOK_SECONDS)


LONGEST_WAIT_SECONDS: Final = 1.0
"""A request that gets no slot within this time is left to a later drain, which the sweep starts."""
BOOKINGS: Final = 5
"""The number of bookings in a row whose slots may have passed by the time that Redis answers."""
REDIS_SLOW: Final = "redis_slow"
LOG: Final = structlog.get_logger()


@dataclass(slots=True)
class SendGuard:
    """Checks lease and slot right before a request is written, because either may be over by then.

    Args:
        slot: In force now.
        noted_ms: When the intent was written, by Redis' clock.
        was_open: The request may have been written.
        has_slot: The slot is still ours.
        closed: Why no other slot could be had after it.
    """

    courier: Courier
    request: Request
    slot: Slot
    noted_ms: int
    was_open: bool = False
    has_slot: bool = True
    closed: Closed | None = None

    async def is_open(self) -> bool:
        """Say whether the request may be written now; a slot that has passed is booked anew."""
        courier = self.courier
        # By both clocks, since the process may have been stopped after it wrote its intent.
        if self.slot.expired(max(self.noted_ms, courier.batch.state.now_ms())):
            await self._rebook()
        may_go = self.has_slot and courier.watch.may_send()
        self.was_open = self.was_open or may_go
        return may_go

    async def _rebook(self) -> None:
        await self.give_back()
        booked = await self.courier.rebook(self.request)
        if isinstance(booked, Slot):
            self.slot, self.noted_ms, self.has_slot = booked, 0, True
        else:
            self.closed = booked

    async def give_back(self) -> None:
        """Give the slot back to the gate, if it was not used."""
        if self.has_slot:
            self.has_slot = False
            await self.courier.gate.cancel(self.slot)


@dataclass(slots=True)
class Courier:
    """Carries the requests of one batch.

    Args:
        watch: Says when nothing new may begin, and when requests in flight must end.
        closed: The gate's last word, where it let nothing pass of some trigger.
    """

    batch: Batch
    packer: Packer
    renderer: RowRenderer
    partition: Partition
    gate: Gate
    sender: Sender
    settler: Settler
    conclusion: Conclusion
    watch: InterruptWatch
    deadline_seconds: float
    closed: Closed | None = None

    async def carry(self, request: Request) -> None:
        """Carry one request to its end, and free its profiles."""
        try:
            slot = await self._slot(request)
            if not isinstance(slot, Slot):
                await self._leave(request, slot)
                return
            if slot.probe and len(request.parcels) > 1:
                request = self.packer.reduce(request, slot.avoid)
            await self._carry_in(slot, request)
        finally:
            self.batch.done(request)

    async def _carry_in(self, slot: Slot, request: Request) -> None:
        """Write a request's note, send it in its slot, and do what follows from the answer."""
        whole = await enveloped(request, self.renderer)
        if isinstance(whole, str):
            await self.gate.cancel(slot)
            self._refuse_unsent(request, whole)
            return
        intent = self._intent(whole)
        passage = SendGuard(self, whole, slot, await self.partition.intent(intent))
        begun = self.batch.state.clock.seconds()
        try:
            verdict, answer = await self._exchange(whole, passage)
        except ConfigurationInvalid as error:
            await passage.give_back()
            await self._unsendable(whole, intent, error.message)
            return
        elapsed = self.batch.state.clock.seconds() - begun
        sent = Sent(whole, intent, answer, passage.slot, begun, elapsed)
        if isinstance(answer, NoAnswer) and answer.is_ours:
            await self._end(sent, answer, passage)
            return
        await self._conclude(sent, verdict)
        if slot.probe and isinstance(verdict, Accepted):
            # All others have waited for the probe, or share no request.
            await self._look()

    async def _conclude(self, sent: Sent, verdict: Verdict) -> None:
        """Settle a request that was sent, answered or not, and report the verdict to the gate."""
        self.batch.state.tally.requests += 1
        self._log(sent, verdict)
        delivered = await self.conclusion.obey(sent, verdict)
        first = sent.request.parcels[0].delivery.place
        await self.gate.report(sent.slot, verdict, delivered=delivered, batch=first)

    async def _end(self, sent: Sent, answer: NoAnswer, passage: SendGuard) -> None:
        """Settle a request that we ended ourselves, which says nothing about the destination."""
        await passage.give_back()
        if answer.possibly_applied:
            self.batch.state.tally.requests += 1
            await self.conclusion.unfinished(sent, answer.message)
            return
        await self.settler.write(Settlement(intent_id=sent.intent.intent_id))
        await self._leave(sent.request, passage.closed)

    async def _leave(self, request: Request, closed: Closed | None) -> None:
        """Take back a request that was not sent, and look for which triggers the gate is open."""
        self.batch.again(request)
        if closed is None:
            return
        if closed.reason == APART:
            await self._part(request)
            return
        self.closed = closed
        if closed.reason == LIVE_FIRST:
            self.batch.state.yield_to_live()
            return
        self.batch.state.shut.update(request.triggers)
        await self._look()

    async def _part(self, request: Request) -> None:
        """Separate the triggers of a request that the gate does not let pass together."""
        self.closed = next(
            (look for look in (await self._look()).values() if isinstance(look, Closed)),
            self.closed,
        )
        apart = {name for name in request.triggers if self.batch.state.is_preview(name)}
        if not apart and self.batch.state.shut.isdisjoint(request.triggers):
            # The obstacle is gone by now. They go apart, so that this does not repeat for ever.
            self.batch.apart.update(request.triggers)

    async def _look(self) -> Mapping[str, Open | Closed]:
        state = self.batch.state
        looks = await self.gate.look(self.batch.routes.keys() - state.paused - state.shut)
        state.obey(looks)
        return looks

    async def _slot(self, request: Request) -> Slot | Closed | None:
        """Book a slot and sleep until its time; None = the drain has to end before."""
        for _ in range(BOOKINGS):
            booked = await self.gate.book(
                kind=self.batch.kind,
                triggers=request.triggers,
                horizon_seconds=LONGEST_WAIT_SECONDS,
            )
            if isinstance(booked, Closed):
                return booked
            wait_seconds = (booked.at_ms - booked.now_ms) / 1000
            if wait_seconds > 0:
                self.batch.state.tally.waited_seconds += wait_seconds
                await self._sleep(wait_seconds)
            if self.watch.is_over:
                await self.gate.cancel(booked)
                return None
            if not booked.expired(self.batch.state.now_ms()):
                return booked
            await self.gate.cancel(booked)
        LOG.warning("redis.slow", message=f"{BOOKINGS} slots had passed when Redis answered.")
        return Closed("ok", REDIS_SLOW, None)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but check every 0.2 s whether the drain has to stop."""
        end = self.batch.state.clock.seconds() + seconds
        while not self.watch.stopping.is_set():
            left = end - self.batch.state.clock.seconds()
            if left <= 0:
                return
            await self.batch.state.clock.sleep(min(left, 0.2))

    async def rebook(self, request: Request) -> Slot | Closed | None:
        """Book again for a request whose slot is over; None = it can't be sent as it is."""
        slot = await self._slot(request)
        if isinstance(slot, Slot) and slot.probe and len(request.parcels) > 1:
            await self.gate.cancel(slot)
            return None
        return slot

    def _intent(self, request: Request) -> Intent:
        rows = tuple(
            IntendedDelivery(d.place, h.digest, h.audience, h.direction, h.time_us, h.replays)
            for d in (parcel.delivery for parcel in request.parcels)
            for h in (d.header,)
        )
        return Intent(secrets.token_hex(8), rows)

    async def _exchange(
        self, request: Request, passage: SendGuard
    ) -> tuple[Verdict, Answer | NoAnswer]:
        """Send a request and judge its answer; an error of our own counts as unreadable."""
        try:
            answer = await self._send(request, passage)
            return self._verdict(request, answer), answer
        except SegrelayError:
            raise
        except Exception as error:  # noqa: BLE001 - it costs this one request
            message = log_bug(error, "request.failed")
            return Unreadable(message), NoAnswer(Silence.CUT, possibly_applied=True)

    async def _send(self, request: Request, passage: SendGuard) -> Answer | NoAnswer:
        outgoing = self._outgoing(request)
        sending = asyncio.ensure_future(
            self.sender.send(outgoing, self.deadline_seconds, passage.is_open)
        )
        cutting = asyncio.ensure_future(self.watch.cut.wait())
        try:
            await asyncio.wait({sending, cutting}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                return sending.result()
            sending.cancel()
            await asyncio.wait({sending})
            return NoAnswer(Silence.STOPPED, possibly_applied=passage.was_open)
        finally:
            cutting.cancel()

    def _outgoing(self, request: Request) -> OutgoingRequest:
        route = request.parcels[0].route
        destination, _ = self.settler.tag
        deliveries = (
            f"{destination}|{delivery.place}|{delivery.header.digest.hex()}"
            for delivery in (parcel.delivery for parcel in request.parcels)
        )
        headers = route.api.headers(deliveries, request.parcels[0].shaped.root)
        signature = route.api.signature(request.body, self.batch.state.now_ms() // 1000)
        return OutgoingRequest(
            request.url,
            {**headers, **route.headers, **signature},
            route.params,
            request.body,
            route.api_name,
            route.api.method,
            route.api.networks,
            route.token_of,
            route.tls,
        )

    def _refuse_unsent(self, request: Request, message: str) -> None:
        """Halve a request whose envelope can't be made, until the delivery at fault is alone."""
        if len(request.parcels) > 1:
            self.batch.split(request)
            return
        parcel = request.parcels[0]
        failure = self.settler.failure(parcel, Death.TEMPLATE_ERROR, message, None)
        self.batch.deaths.append((parcel.delivery, failure))

    async def _unsendable(self, request: Request, intent: Intent, message: str) -> None:
        """Dead-letter deliveries whose own URL can't be used; else pause the request's triggers."""
        parcels = request.parcels
        if any(parcel.shaped.url for parcel in parcels):
            deaths = [
                (p.delivery, self.settler.failure(p, Death.INVALID, message, None)) for p in parcels
            ]
            dead = await self.settler.dead(deaths)
            await self.settler.write(Settlement(settled=dead, intent_id=intent.intent_id))
            return
        await self.settler.write(Settlement(intent_id=intent.intent_id))
        failure = self.settler.failure(parcels[0], Death.INVALID, message, None)
        for trigger in request.triggers:
            await self.settler.streaks.pause(trigger, failure)
            self.batch.leave(trigger)

    def _verdict(self, request: Request, answer: Answer | NoAnswer) -> Verdict:
        if isinstance(answer, NoAnswer):
            return answer.verdict
        api = request.parcels[0].route.api
        users = [user for packed in request.packed for user in packed.users]
        people = [packed.members[0].digest for packed in request.packed for _ in packed.users]
        verdict = api.classify(answer, users=request.users, url=request.url, people=people)
        return quoting_nothing(verdict, _all_values(request, users), users)

    def _log(self, sent: Sent, verdict: Verdict) -> None:
        request, answer = sent.request, sent.answer
        destination, partition = self.settler.tag
        # Refused credentials pause the destination until somebody acts.
        tell = LOG.error if isinstance(verdict, AccessRefused) else LOG.info
        tell(
            "request.answered",
            destination=destination,
            partition=partition,
            triggers=len(request.triggers),
            trigger=request.triggers[0],
            users=request.users,
            deliveries=len(request.parcels),
            bytes=len(request.body),
            status=answer.status if isinstance(answer, Answer) else answer.kind.value,
            verdict=type(verdict).__name__,
            elapsed_seconds=round(sent.elapsed_seconds, 3),
        )


def _all_values(request: Request, users: Sequence[bytes]) -> bytes:
    """Return a text with every value that was sent, not escaped as in a form or a URL."""
    if not request.parcels[0].shaped.url and request.body[:1] in (b"{", b"["):
        return request.body
    return b"\n".join((*users, unquote(request.url).encode()))

"""Send one request: book its send time, write its intent, send it, read the answer, settle.

Also the watch over lease and signal to stop while requests are under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import unquote

import structlog

from segrelay.worker.batch.batch import Batch, Request, Settler
from segrelay.worker.batch.conclude import Conclusion
from segrelay.worker.batch.delivery import Failure
from segrelay.worker.batch.pack import Packer, put_in_envelope
from segrelay.worker.batch.partition import Clock, IntendedDelivery, Intent, Settlement
from segrelay.worker.batch.render import RowRenderer
from segrelay.worker.contract.words import Death
from segrelay.worker.core.gate import APART, LIVE_FIRST, Closed, Open, SendTime
from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    Unreadable,
    Verdict,
    quoting_nobody,
)
from segrelay.worker.destinations.api import Answer, NoAnswer, OutgoingRequest, Sender, Silence
from segrelay.worker.errors import ConfigurationInvalid, SegrelayError
from segrelay.worker.logs import log_bug

if TYPE_CHECKING:
    from segrelay.worker.adapters.redis.gate import RedisGate
    from segrelay.worker.adapters.redis.partition import RedisPartition

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
        grace_seconds: The time for which requests may be under way after the signal to stop.
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
"""A request that gets no send time within this is left to a later drain, which the sweep starts."""
BOOKINGS: Final = 5
"""The number of bookings in a row whose send times may have passed when Redis answers."""
REDIS_SLOW: Final = "redis_slow"
LOG: Final = structlog.get_logger()


@dataclass(slots=True)
class SendPermit:
    """The permission to send one request: a send time of the gate that is not over, and the lease.

    Attributes:
        send_time: The send time in force now; None = there is none.
        closed: The reason why no send time could be had, if the gate said so.
        intent_ms: The time when the request's intent was written, by Redis' clock.
        was_given: The request may have been written.
    """

    batch: Batch
    gate: RedisGate
    watch: InterruptWatch
    request: Request
    send_time: SendTime | None = None
    closed: Closed | None = None
    intent_ms: int = 0
    was_given: bool = False

    async def is_given(self) -> bool:
        """Say whether the request may be written now: a send time that has passed is booked anew.

        Asked right before the first byte, because send time or lease may be over by then.
        """
        # By both clocks, since the process may have been stopped after it wrote its intent.
        if self.send_time and self.send_time.expired(
            max(self.intent_ms, self.batch.state.now_ms())
        ):
            await self.give_back()
            self.intent_ms = 0
            await self.book()
            if self.send_time and self.send_time.probe and len(self.request.deliveries) > 1:
                await self.give_back()
        is_given = self.send_time is not None and self.watch.may_send()
        self.was_given = self.was_given or is_given
        return is_given

    async def give_back(self) -> None:
        """Give the send time back to the gate, because it is not used."""
        if self.send_time:
            send_time, self.send_time = self.send_time, None
            await self.gate.cancel(send_time)

    async def book(self) -> SendTime | None:
        """Book a send time and sleep until then; None = there is none, or the drain has to end."""
        for _ in range(BOOKINGS):
            booked = await self.gate.book(
                kind=self.batch.kind,
                triggers=self.request.triggers,
                horizon_seconds=LONGEST_WAIT_SECONDS,
            )
            if isinstance(booked, Closed):
                self.closed = booked
                return None
            self.send_time = booked
            wait_seconds = (booked.at_ms - booked.now_ms) / 1000
            if wait_seconds > 0:
                self.batch.state.tally.waited_seconds += wait_seconds
                await self._sleep(wait_seconds)
            if self.watch.is_over:
                await self.give_back()
                return None
            if not booked.expired(self.batch.state.now_ms()):
                return booked
            await self.give_back()
        LOG.warning("redis.slow", message=f"{BOOKINGS} send times had passed when Redis answered.")
        self.closed = Closed("ok", REDIS_SLOW, None)
        return None

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but check every 0.2 s whether the drain has to stop."""
        clock = self.batch.state.clock
        end = clock.seconds() + seconds
        while not self.watch.stopping.is_set():
            left = end - clock.seconds()
            if left <= 0:
                return
            await clock.sleep(min(left, 0.2))


@dataclass(slots=True)
class BatchSender:
    """Sends the requests of one batch.

    Args:
        watch: The clock that ends the drain: nothing new begins, and requests in flight end in
            time.
        closed: The gate's last word, where it let nothing pass of some trigger.
    """

    batch: Batch
    packer: Packer
    renderer: RowRenderer
    partition: RedisPartition
    gate: RedisGate
    sender: Sender
    settler: Settler
    conclusion: Conclusion
    watch: InterruptWatch
    deadline_seconds: float
    closed: Closed | None = None

    async def send(self, request: Request) -> None:
        """Send one request, carry out what its answer means, and free its profiles."""
        try:
            permit = SendPermit(self.batch, self.gate, self.watch, request)
            send_time = await permit.book()
            if send_time is None:
                await self._leave(request, permit.closed)
                return
            if send_time.probe and len(request.deliveries) > 1:
                request = permit.request = self.packer.reduce(request, send_time.avoid)
            problem = await put_in_envelope(request, self.renderer)
            if problem:
                await permit.give_back()
                # It is halved until the delivery at fault is alone.
                if len(request.deliveries) > 1:
                    self.batch.split(request)
                else:
                    self.batch.fail(request.deliveries[0], Death.TEMPLATE_ERROR, problem)
                return
            request.intent = _intent_of(request)
            permit.intent_ms = await self.partition.intent(request.intent)
            await self._send_with(permit, request, send_time)
        finally:
            self.batch.done(request)

    async def _send_with(self, permit: SendPermit, request: Request, send_time: SendTime) -> None:
        """Send a request whose intent is written, and do what follows from the answer."""
        clock = self.batch.state.clock
        request.begun_seconds = clock.seconds()
        try:
            verdict = await self._exchange(request, permit)
        except ConfigurationInvalid as error:
            await permit.give_back()
            await self._unsendable(request, error.message)
            return
        request.elapsed_seconds = clock.seconds() - request.begun_seconds
        request.send_time = permit.send_time or send_time
        answer = request.answer
        if isinstance(answer, NoAnswer) and answer.is_ours:
            await self._end(request, answer, permit)
            return
        self.batch.state.tally.requests += 1
        self._log(request, verdict)
        delivered = await self.conclusion.obey(request, verdict)
        first = request.deliveries[0].position
        await self.gate.report(request.send_time, verdict, delivered=delivered, batch=first)
        if send_time.probe and isinstance(verdict, Accepted):
            # All others have waited for the probe, or share no request.
            await self._look()

    async def _end(self, request: Request, answer: NoAnswer, permit: SendPermit) -> None:
        """Settle a request that we ended ourselves, which says nothing about the destination."""
        await permit.give_back()
        if answer.possibly_applied:
            self.batch.state.tally.requests += 1
            await self.conclusion.unfinished(request, answer.message)
            return
        await self.settler.write(Settlement(intent_id=request.intent.intent_id))
        await self._leave(request, permit.closed)

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
            self.batch.state.yields = True
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
        looks = await self.gate.look(self.batch.triggers.keys() - state.paused - state.shut)
        state.obey(looks)
        return looks

    async def _exchange(self, request: Request, permit: SendPermit) -> Verdict:
        """Send a request and judge its answer; an error of our own counts as unreadable."""
        try:
            request.answer = await self._answer(request, permit)
            return self._verdict(request, request.answer)
        except SegrelayError:
            raise
        except Exception as error:  # noqa: BLE001 - it costs this one request
            message = log_bug(error, "request.failed")
            request.answer = NoAnswer(Silence.CUT, possibly_applied=True)
            return Unreadable(message)

    async def _answer(self, request: Request, permit: SendPermit) -> Answer | NoAnswer:
        """Send a request; it is cut off when the lease is lost, or the time to stop is over."""
        outgoing = self._outgoing(request)
        sending = asyncio.ensure_future(
            self.sender.send(outgoing, self.deadline_seconds, permit.is_given)
        )
        cutting = asyncio.ensure_future(self.watch.cut.wait())
        try:
            await asyncio.wait({sending, cutting}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                return sending.result()
            sending.cancel()
            await asyncio.wait({sending})
            return NoAnswer(Silence.STOPPED, possibly_applied=permit.was_given)
        finally:
            cutting.cancel()

    def _outgoing(self, request: Request) -> OutgoingRequest:
        trigger = request.trigger
        destination = self.settler.keys.destination
        deliveries = (
            f"{destination}|{delivery.position}|{delivery.digest.hex()}"
            for delivery in request.deliveries
        )
        headers = trigger.api.headers(deliveries, request.deliveries[0].shaped.root)
        return OutgoingRequest(
            request.url,
            {
                **headers,
                **trigger.headers,
                **trigger.api.signature(request.url, request.body),
            },
            trigger.params,
            request.body,
            trigger.api_name,
            trigger.api.method,
            trigger.api.networks,
            trigger.token_of,
            trigger.authority,
        )

    async def _unsendable(self, request: Request, message: str) -> None:
        """Dead-letter deliveries whose own URL can't be used; else pause the request's triggers."""
        intent_id = request.intent.intent_id
        if any(delivery.shaped.url for delivery in request.deliveries):
            failed = [each.fail(Death.INVALID, message) for each in request.deliveries]
            dead = await self.settler.dead(failed)
            await self.settler.write(Settlement(settled=dead, intent_id=intent_id))
            return
        await self.settler.write(Settlement(intent_id=intent_id))
        failure = Failure(Death.INVALID, message)
        for trigger in request.triggers:
            await self.settler.streaks.pause(trigger, failure)
            self.batch.leave(trigger)

    def _verdict(self, request: Request, answer: Answer | NoAnswer) -> Verdict:
        if isinstance(answer, NoAnswer):
            return answer.verdict
        users = [user for person in request.people for user in person[0].users]
        verdict = request.trigger.api.classify(
            answer, users=request.users, url=request.url, bodies=users
        )
        words = request.trigger.api.words
        return quoting_nobody(verdict, words, _all_values(request, users), users)

    def _log(self, request: Request, verdict: Verdict) -> None:
        answer = request.answer
        # Refused credentials pause the destination until somebody acts.
        tell = LOG.error if isinstance(verdict, AccessRefused) else LOG.info
        tell(
            "request.answered",
            destination=self.settler.keys.destination,
            partition=self.settler.keys.number,
            triggers=len(request.triggers),
            trigger=request.triggers[0],
            users=request.users,
            deliveries=len(request.deliveries),
            bytes=len(request.body),
            status=answer.status if isinstance(answer, Answer) else answer.kind.value,
            verdict=type(verdict).__name__,
            elapsed_seconds=round(request.elapsed_seconds, 3),
        )


def _intent_of(request: Request) -> Intent:
    rows = tuple(
        IntendedDelivery(d.position, h.digest, h.audience, h.direction, h.time_us, h.replays)
        for d in request.deliveries
        for h in (d.header,)
    )
    return Intent(secrets.token_hex(8), rows)


def _all_values(request: Request, users: Sequence[bytes]) -> bytes:
    """Return a text with every value that was sent, not escaped as in a form or a URL."""
    if not request.deliveries[0].shaped.url and request.body[:1] in (b"{", b"["):
        return request.body
    return b"\n".join((*users, unquote(request.url).encode()))

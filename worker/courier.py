"""Steps 8 to 11: book a slot, write the note, send, read the answer, settle. One request each."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from worker.conclusion import Conclusion
from worker.contract.words import Death
from worker.core.gate import Closed, Gate, Slot
from worker.core.verdicts import AccessRefused, Verdict
from worker.destinations.api import Answer
from worker.destinations.sending import NoAnswer, OutgoingRequest, Sender, Silence
from worker.errors import ConfigurationInvalid
from worker.packing import Packer, Request
from worker.partition import Note, NotedDelivery, Partition, Settlement
from worker.settling import Settler
from worker.state import State

LONGEST_WAIT_SECONDS: Final = 1.0
"""What gets no slot within this time is left to a later drain; the sweep comes back."""
LOG: Final = structlog.get_logger()


@dataclass(slots=True)
class Courier:
    """Carries the requests of one batch.

    Args:
        kind: Of the lane.
        cut: Set when requests in flight must end: the lease was lost, or the time to stop is over.
        stopping: Set when nothing new may begin.
        may_send: Says whether the lease holds, by a clock that no stop of this process stops.
        closed: The gate's last word, where it let nothing pass of some trigger.
    """

    partition: Partition
    gate: Gate
    sender: Sender
    settler: Settler
    conclusion: Conclusion
    state: State
    kind: Literal["live", "backfill"]
    deadline_seconds: float
    cut: asyncio.Event
    stopping: asyncio.Event
    may_send: Callable[[], bool]
    closed: Closed | None = None

    async def carry(self, request: Request, packer: Packer) -> None:
        """Carry one request to its end; the packer's profiles are free afterwards."""
        try:
            slot = await self._slot(request)
            if slot is None:
                self._leave(request, packer)
                return
            if slot.probe and len(request.packed) > 1:
                request = packer.reduce(request, slot.avoid)
            note = self._note(request)
            now_ms = await self.partition.note(note)
            # By both clocks: a process that was stopped after its note may have lost the lease.
            if slot.expired(max(now_ms, self.state.now_ms())):
                await self.gate.cancel(slot, trigger=request.trigger)
                await self.settler.write(Settlement(note_id=note.note_id))
                packer.again(request)
                return
            begun = self.state.clock.seconds()
            try:
                answer = await self._send(request)
            except ConfigurationInvalid as error:
                await self.gate.cancel(slot, trigger=request.trigger)
                await self._unsendable(request, note, error.message, packer)
                return
            verdict = self._verdict(request, answer)
            self.state.tally.requests += 1
            self._tell(request, answer, verdict, self.state.clock.seconds() - begun)
            delivered = await self.conclusion.obey(request, note, (verdict, answer), slot, packer)
            if self.cut.is_set() and isinstance(answer, NoAnswer):
                # Our own doing: it says nothing about the destination.
                await self.gate.cancel(slot, trigger=request.trigger)
                return
            await self.gate.report(
                slot,
                verdict,
                trigger=request.trigger,
                delivered=delivered,
                batch=request.parcels[0].delivery.place,
            )
        finally:
            packer.done(request)

    def _leave(self, request: Request, packer: Packer) -> None:
        """Leave what got no slot; a gate that is closed for one trigger may be open for others."""
        if self.closed and not self.stopping.is_set() and not self.cut.is_set():
            self.settler.leave(request.trigger, packer)
        else:
            packer.again(request)

    async def _slot(self, request: Request) -> Slot | None:
        """Book a slot and sleep until it; None if there is none, or the drain has to end before."""
        while True:
            booked = await self.gate.book(
                kind=self.kind, trigger=request.trigger, horizon_seconds=LONGEST_WAIT_SECONDS
            )
            if isinstance(booked, Closed):
                self.closed = booked
                return None
            wait_seconds = (booked.at_ms - booked.now_ms) / 1000
            if wait_seconds > 0:
                self.state.tally.waited_seconds += wait_seconds
                await self._sleep(wait_seconds)
            if self.stopping.is_set() or self.cut.is_set():
                await self.gate.cancel(booked, trigger=request.trigger)
                return None
            if not booked.expired(self.state.now_ms()):
                return booked
            await self.gate.cancel(booked, trigger=request.trigger)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but look at the flag every 0.2 s."""
        end = self.state.clock.seconds() + seconds
        while not self.stopping.is_set():
            left = end - self.state.clock.seconds()
            if left <= 0:
                return
            await self.state.clock.sleep(min(left, 0.2))

    def _note(self, request: Request) -> Note:
        rows = tuple(
            NotedDelivery(d.place, h.digest, h.audience, h.direction, h.time_us, h.replays)
            for d in (parcel.delivery for parcel in request.parcels)
            for h in (d.header,)
        )
        return Note(secrets.token_hex(8), request.trigger, rows)

    async def _send(self, request: Request) -> Answer | NoAnswer:
        if not self.may_send():
            return NoAnswer(Silence.CUT, possibly_applied=False)
        route = request.parcels[0].route
        outgoing = OutgoingRequest(
            request.url, route.headers, route.params, request.body, route.api_name
        )
        sending = asyncio.ensure_future(self.sender.send(outgoing, self.deadline_seconds))
        cutting = asyncio.ensure_future(self.cut.wait())
        try:
            await asyncio.wait({sending, cutting}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                return sending.result()
            sending.cancel()
            await asyncio.wait({sending})
            return NoAnswer(Silence.CUT, possibly_applied=True)
        finally:
            cutting.cancel()

    async def _unsendable(self, request: Request, note: Note, message: str, packer: Packer) -> None:
        """Nothing has left: the template named a forbidden URL, or the credentials are no HTTP."""
        parcels = request.parcels
        if any(parcel.shaped.url for parcel in parcels):
            deaths = [
                (p.delivery, self.settler.obituary(p, Death.INVALID, message, None))
                for p in parcels
            ]
            buried = await self.settler.buried(deaths, packer)
            await self.settler.write(Settlement(settled=buried, note_id=note.note_id))
            return
        await self.settler.write(Settlement(note_id=note.note_id))
        await self.settler.streaks.pause(
            request.trigger, self.settler.obituary(parcels[0], Death.INVALID, message, None)
        )
        self.settler.leave(request.trigger, packer)

    def _verdict(self, request: Request, answer: Answer | NoAnswer) -> Verdict:
        if isinstance(answer, NoAnswer):
            return answer.verdict
        api = request.parcels[0].route.api
        return api.classify(answer, users=request.users, url=request.url)

    def _tell(
        self, request: Request, answer: Answer | NoAnswer, verdict: Verdict, elapsed_seconds: float
    ) -> None:
        destination, partition = self.settler.tag
        # Refused credentials pause the destination until somebody acts.
        tell = LOG.error if isinstance(verdict, AccessRefused) else LOG.info
        tell(
            "request.answered",
            destination=destination,
            partition=partition,
            trigger=request.trigger,
            users=request.users,
            bytes=len(request.body),
            status=answer.status if isinstance(answer, Answer) else answer.kind.value,
            verdict=type(verdict).__name__,
            elapsed_seconds=round(elapsed_seconds, 3),
        )

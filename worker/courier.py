"""Steps 8 to 11: book a slot, write the note, send, read the answer, settle. One request each."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, assert_never

import orjson

from worker.contract.words import Death, Skip
from worker.core.backoff import AfterFailure, Setback, Wait, after_failure
from worker.core.gate import Closed, Gate, Slot
from worker.core.ledger import Record, pack, with_delivered, with_tried
from worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    RefusedUser,
    SlowDown,
    TooLarge,
    Unreadable,
    Verdict,
)
from worker.destinations.api import Answer
from worker.destinations.sending import NoAnswer, OutgoingRequest, Sender, Silence
from worker.errors import ConfigurationInvalid, LeaseLost
from worker.letters import Obituary, letter_of
from worker.packing import Halving, Packer, Request
from worker.partition import Delivery, Note, NotedDelivery, Partition, Settled, Settlement
from worker.preparing import Numbers, Parcel
from worker.repair import repair
from worker.state import State

LONGEST_WAIT_SECONDS: Final = 1.0
"""A slot further away than this ends the drain; the sweep comes back."""
SUSPECTS_AT_MOST: Final = 8
"""So many of one body refused alone, for one cause, and nothing taken: the trigger is wrong."""


class Streaks(Protocol):
    """Counts deaths of one cause in a row, over all workers."""

    async def may_die(self, trigger: str, obituary: Obituary, count: int) -> int:
        """Return how many may; the trigger is paused where that is fewer."""
        ...

    async def broken(self, trigger: str) -> None:
        """Something of the trigger was delivered."""
        ...

    async def pause(self, trigger: str, obituary: Obituary) -> None:
        """Pause a trigger of which nothing else comes."""
        ...


@dataclass(slots=True)
class Courier:
    """Carries the requests of one drain.

    Args:
        kind: Of the lane.
        tag: Destination and partition.
        cut: Set when requests in flight must end: the lease was lost, or the time to stop is over.
        stopping: Set when nothing new may begin.
    """

    partition: Partition
    gate: Gate
    sender: Sender
    streaks: Streaks
    numbers: Numbers
    state: State
    jitter: random.Random
    tag: tuple[str, int]
    kind: Literal["live", "backfill"]
    deadline_seconds: float
    late_seconds: float
    cut: asyncio.Event
    stopping: asyncio.Event
    closed: Closed | None = None
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wait_set_ms: dict[str, int] = field(default_factory=dict)

    async def carry(self, request: Request, packer: Packer) -> None:
        """Carry one request to its end; the packer's profiles are free afterwards."""
        try:
            slot = await self._slot(request)
            if slot is None:
                packer.again(request)
                return
            if slot.probe and len(request.packed) > 1:
                request = packer.reduce(request, slot.avoid)
            note = self._note(request)
            now_ms = await self.partition.note(note)
            if slot.expired(now_ms):
                await self.gate.cancel(slot, trigger=request.trigger)
                await self._settle(Settlement(note_id=note.note_id))
                packer.again(request)
                return
            try:
                answer = await self._send(request)
            except ConfigurationInvalid as error:
                await self.gate.cancel(slot, trigger=request.trigger)
                await self._unsendable(request, note, error.message, packer)
                return
            verdict = self._verdict(request, answer)
            self.state.tally.requests += 1
            delivered = await self._conclude(request, note, (verdict, answer), slot, packer)
            await self.gate.report(
                slot,
                verdict,
                trigger=request.trigger,
                delivered=delivered,
                batch=request.parcels[0].delivery.place,
            )
        finally:
            packer.done(request)

    async def _slot(self, request: Request) -> Slot | None:
        """Book a slot and sleep until it; None if the drain has to end before."""
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
            NotedDelivery(d.place, d.header.digest, h.audience, h.direction, h.time_us)
            for d in (parcel.delivery for parcel in request.parcels)
            for h in (d.header,)
        )
        return Note(secrets.token_hex(8), request.trigger, rows)

    async def _send(self, request: Request) -> Answer | NoAnswer:
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
                (p.delivery, self._obituary(p, Death.INVALID, message, None)) for p in parcels
            ]
            buried = await self.buried(deaths, packer)
            await self._settle(Settlement(settled=buried, note_id=note.note_id))
            return
        await self._settle(Settlement(note_id=note.note_id))
        await self.streaks.pause(
            request.trigger, self._obituary(parcels[0], Death.INVALID, message, None)
        )
        self.leave(request.trigger, packer)

    def _verdict(self, request: Request, answer: Answer | NoAnswer) -> Verdict:
        if isinstance(answer, NoAnswer):
            return answer.verdict
        api = request.parcels[0].route.api
        return api.classify(answer, users=request.users, url=request.url)

    async def _conclude(
        self,
        request: Request,
        note: Note,
        result: tuple[Verdict, Answer | NoAnswer],
        slot: Slot,
        packer: Packer,
    ) -> int:
        """Do what a verdict says; returns how many were delivered."""
        verdict, answer = result
        try:
            match verdict:
                case Accepted(refused):
                    return await self._accepted(request, note, refused, answer, packer)
                case TooLarge(message):
                    await self._too_large(request, note, message, answer, packer)
                case BodyRefused(message):
                    await self._body_refused(request, note, message, answer, packer)
                case SlowDown() | AccessRefused():
                    await self._settle(self._closing(request, note))
                    packer.again(request)
                case Failed(message, possibly_applied):
                    await self._failed(
                        request, note, message, slot, packer, possibly_applied=possibly_applied
                    )
                case Unreadable(message):
                    await self._failed(request, note, message, slot, packer, possibly_applied=True)
                case _ as never:
                    assert_never(never)
        except LeaseLost:
            unanswered = isinstance(verdict, Failed | Unreadable)
            if not isinstance(verdict, Failed) or verdict.possibly_applied:
                await repair(
                    self.partition,
                    request.parcels,
                    names=self.numbers.triggers(),
                    unanswered_note=note if unanswered else None,
                    late_seconds=self.late_seconds,
                )
            raise
        return 0

    def _closing(
        self,
        request: Request,
        note: Note,
        settled: Sequence[Settled] = (),
        dropped: Mapping[str, int] | None = None,
        **more: object,
    ) -> Settlement:
        """Return a settlement that closes the note of a request with a sure answer."""
        return Settlement(
            settled=settled,
            note_id=note.note_id,
            counts={
                **self._counts(request),
                **{f"dropped|{request.trigger}|{name}": n for name, n in (dropped or {}).items()},
            },
            **more,  # type: ignore[arg-type]
        )

    def _counts(self, request: Request, **more: int) -> dict[str, int]:
        again = sum(parcel.delivery.place in self.state.ambiguous for parcel in request.parcels)
        counts = {"requests": 1, "resent": again, **more}
        return {f"{name}|{request.trigger}": n for name, n in counts.items() if n}

    async def _accepted(
        self,
        request: Request,
        note: Note,
        refused: Mapping[int, RefusedUser],
        answer: Answer | NoAnswer,
        packer: Packer,
    ) -> int:
        settled: list[Settled] = []
        deaths: list[tuple[Delivery, Obituary]] = []
        records: dict[bytes, Record] = {}
        sent: list[str] = []
        dropped: Counter[str] = Counter()
        index = 0
        for packed in request.packed:
            parcel = packed.parcel
            users = range(index, index + len(packed.users))
            index = users.stop
            no = next((refused[i] for i in users if i in refused), None)
            match no:
                case None:
                    record = _delivered(self.state.records[parcel.digest], parcel)
                    records[parcel.digest] = record
                    dropped.update(packed.dropped)
                    settled.append(Settled(parcel.delivery, ledger=pack(record)))
                    settled += (
                        Settled(loser.delivery, Skip.SUPERSEDED, remark="superseded in its batch")
                        for loser in parcel.losers
                    )
                    if not sent:
                        sent.append(_sent_line(parcel, self.state.now_ms()))
                case RefusedUser(Skip() as reason, message):
                    settled.append(
                        Settled(parcel.delivery, reason, remark=f"{reason.value}: {message}")
                    )
                case RefusedUser(Death() as reason, message):
                    obituary = self._obituary(parcel, reason, message, answer)
                    deaths.append((parcel.delivery, obituary))
        buried = await self.buried(deaths, packer)
        wait_over = {request.trigger: None} if request.trigger in self.state.waits else {}
        await self._settle(
            self._closing(
                request, note, [*settled, *buried], dropped=dropped, waits=wait_over, sent=sent
            )
        )
        self.state.records.update(records)
        self.state.waits.pop(request.trigger, None)
        if records:
            await self.streaks.broken(request.trigger)
        await self._part_taken(request, packer)
        return len(records)

    async def _part_taken(self, request: Request, packer: Packer) -> None:
        """A part of a halved body was taken: what was refused alone is to blame for itself."""
        halving = request.halving
        if halving is None:
            return
        halving.open_parts -= 1
        halving.others_went_through = True
        await self._bury_suspects(halving, packer)

    async def _too_large(
        self, request: Request, note: Note, message: str, answer: Answer | NoAnswer, packer: Packer
    ) -> None:
        if len(request.packed) > 1:
            await self._settle(self._closing(request, note))
            packer.split(request, request.halving)
            return
        parcel = request.parcels[0]
        death = (parcel.delivery, self._obituary(parcel, Death.TOO_LARGE, message, answer))
        await self._settle(self._closing(request, note, await self.buried([death], packer)))

    async def _body_refused(
        self, request: Request, note: Note, message: str, answer: Answer | NoAnswer, packer: Packer
    ) -> None:
        """Halve; a delivery refused alone is suspect until something else went through."""
        await self._settle(self._closing(request, note))
        halving = request.halving or Halving()
        if len(request.packed) > 1:
            packer.split(request, halving)
            return
        halving.open_parts -= 1
        parcel = request.parcels[0]
        obituary = self._obituary(parcel, Death.REFUSED, message, answer)
        halving.suspects.append((parcel, obituary))
        causes = {suspect[1].cause for suspect in halving.suspects}
        if halving.others_went_through or halving.open_parts <= 0:
            await self._bury_suspects(halving, packer)
        elif len(halving.suspects) >= SUSPECTS_AT_MOST and len(causes) == 1:
            await self.streaks.pause(request.trigger, obituary)
            self.leave(request.trigger, packer)

    async def _bury_suspects(self, halving: Halving, packer: Packer) -> None:
        deaths = [(parcel.delivery, obituary) for parcel, obituary in halving.suspects]
        halving.suspects.clear()
        if deaths:
            await self._settle(Settlement(settled=await self.buried(deaths, packer)))

    async def _failed(
        self,
        request: Request,
        note: Note,
        message: str,
        slot: Slot,
        packer: Packer,
        *,
        possibly_applied: bool,
    ) -> None:
        if request.halving:
            request.halving.open_parts -= 1
        if possibly_applied and request.parcels[0].route.on_ambiguous == "dead_letter":
            await self._ambiguous(request, note, message, packer)
            return
        outcomes = {
            parcel: self._after_failure(parcel, request, slot) for parcel in request.parcels
        }
        wait = next((outcome.wait for outcome in outcomes.values() if outcome.wait), None)
        deaths = [
            (parcel.delivery, self._obituary(parcel, Death.FAILED, message, None))
            for parcel, outcome in outcomes.items()
            if outcome.setback is None
        ]
        setbacks = {
            parcel.delivery.place: outcome.setback
            for parcel, outcome in outcomes.items()
            if outcome.setback
        }
        remark = f"retry: {message}"
        await self._settle_open(
            request,
            note,
            Settlement(
                settled=await self.buried(deaths, packer),
                waits={request.trigger: wait},
                setbacks=setbacks,
                history=[self._line(p.delivery, "retry", remark) for p in request.parcels],
            ),
            possibly_applied=possibly_applied,
        )
        self.state.setbacks.update(setbacks)
        self._set_wait(request.trigger, wait)
        if wait:
            packer.drop_trigger(request.trigger)

    def _after_failure(self, parcel: Parcel, request: Request, slot: Slot) -> AfterFailure:
        setback: Setback | None = self.state.setbacks.get(parcel.delivery.place)
        wait = self.state.waits.get(request.trigger)
        now_ms = self.state.now_ms()
        outcome = after_failure(
            setback,
            wait,
            users=len(request.packed),
            successes=slot.successes,
            now_ms=now_ms,
            jitter=self.jitter.random(),
        )
        fresh = wait and self._wait_set_ms.get(request.trigger, 0) >= slot.at_ms
        return AfterFailure(outcome.setback, wait) if fresh and outcome.wait else outcome

    def _set_wait(self, trigger: str, wait: Wait | None) -> None:
        if wait is None:
            self.state.waits.pop(trigger, None)
            return
        self.state.waits[trigger] = wait
        self._wait_set_ms[trigger] = self.state.now_ms()

    async def _ambiguous(self, request: Request, note: Note, message: str, packer: Packer) -> None:
        """The destination's `on_ambiguous` says that a person decides."""
        deaths = [
            (parcel.delivery, self._obituary(parcel, Death.AMBIGUOUS, message, None))
            for parcel in request.parcels
        ]
        buried = [self._settled(delivery, obituary) for delivery, obituary in deaths]
        await self._settle_open(request, note, Settlement(settled=buried), possibly_applied=True)
        packer.drop_trigger(request.trigger)

    async def _settle_open(
        self, request: Request, note: Note, base: Settlement, *, possibly_applied: bool
    ) -> None:
        """Settle a request without a sure answer: its note stays open, and `tried` is written."""
        tried = {
            parcel.digest: with_tried(self.state.records[parcel.digest], parcel.fact)
            for parcel in request.parcels
            if possibly_applied
        }
        end_ms = await self._settle(
            Settlement(
                settled=base.settled,
                note_id=note.note_id,
                open_seconds=self.late_seconds if possibly_applied else 0.0,
                tried={digest: pack(record) for digest, record in tried.items()},
                waits=base.waits,
                setbacks=base.setbacks,
                counts=self._counts(request, unanswered=int(possibly_applied)),
                history=base.history,
            )
        )
        self.state.records.update(tried)
        if possibly_applied and end_ms:
            opened = Note(note.note_id, note.trigger, note.deliveries, end_ms)
            self.state.keep_open(opened)

    async def buried(
        self, deaths: Sequence[tuple[Delivery, Obituary]], packer: Packer | None
    ) -> list[Settled]:
        """Return the settled deaths; those beyond a streak of one cause stay where they are."""
        groups: dict[tuple[str, str], list[tuple[Delivery, Obituary]]] = {}
        for delivery, obituary in deaths:
            groups.setdefault((delivery.trigger, obituary.cause), []).append((delivery, obituary))
        settled: list[Settled] = []
        for (trigger, _), group in groups.items():
            may = await self.streaks.may_die(trigger, group[0][1], len(group))
            settled += [self._settled(delivery, obituary) for delivery, obituary in group[:may]]
            if may < len(group):
                self.leave(trigger, packer)
        return settled

    def leave(self, trigger: str, packer: Packer | None) -> None:
        """Leave all of a trigger that was paused just now in its streams."""
        self.state.paused.add(trigger)
        if packer:
            packer.drop_trigger(trigger)

    def _settled(self, delivery: Delivery, obituary: Obituary) -> Settled:
        letter = letter_of(delivery, obituary, tag=self.tag, now_ms=self.state.now_ms())
        remark = f"{obituary.reason.value}: cause {obituary.cause}"
        return Settled(delivery, obituary.reason, letter=letter, remark=remark)

    def _obituary(
        self, parcel: Parcel, reason: Death, message: str, answer: Answer | NoAnswer | None
    ) -> Obituary:
        setback = self.state.setbacks.get(parcel.delivery.place)
        template = parcel.route.template
        status, text = (answer.status, answer.body) if isinstance(answer, Answer) else (0, b"")
        return Obituary(
            reason,
            message,
            template.content_hash if template else "",
            parcel.body,
            status,
            text,
            (setback.failures if setback else 0) + 1,
        )

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Settle what needs no request."""
        if settled:
            await self._settle(Settlement(settled=settled))

    async def _settle(self, settlement: Settlement) -> int:
        lines = (*settlement.history, *self._lines(settlement.settled))
        whole = Settlement(
            settlement.settled,
            settlement.note_id,
            settlement.open_seconds,
            settlement.tried,
            settlement.waits,
            settlement.setbacks,
            settlement.counts,
            lines,
            settlement.sent,
        )
        async with self._settling:
            end_ms = await self.partition.settle(whole)
        self._count(settlement.settled)
        return end_ms

    def _lines(self, settled: Iterable[Settled]) -> list[bytes]:
        return [self._line(s.delivery, s.kind, s.remark) for s in settled if s.remark]

    def _line(self, delivery: Delivery, outcome: str, remark: str) -> bytes:
        h = delivery.header
        return orjson.dumps(
            [
                self.state.now_ms(),
                h.digest.hex(),
                h.audience,
                delivery.trigger,
                h.direction.value,
                h.time_us,
                outcome,
                remark,
            ]
        )

    def _count(self, settled: Iterable[Settled]) -> None:
        tally = self.state.tally
        for outcome in settled:
            match outcome.kind:
                case "delivered":
                    tally.delivered += 1
                case "skipped":
                    tally.skipped += 1
                case _:
                    tally.dead += 1
        self.state.forget_setbacks(outcome.delivery.place for outcome in settled)


def _delivered(record: Record, parcel: Parcel) -> Record:
    users: tuple[Any, ...] = parcel.shaped.users
    data_sent = any(isinstance(user, dict) and "attributes" in user for user in users)
    return with_delivered(record, parcel.fact, data_sent=data_sent)


def _sent_line(parcel: Parcel, now_ms: int) -> str:
    user: Any = parcel.shaped.users[0]
    who = {
        key: user[key]
        for key in ("identifiers", "insider_id")
        if isinstance(user, dict) and key in user
    }
    return orjson.dumps([now_ms, parcel.digest.hex(), who]).decode()

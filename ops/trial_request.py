"""Sending one event by all the rules of a drain.

Whoever sends holds the partition's lease meanwhile, asks the ledger first and tells it afterwards:
so the event neither overtakes what a worker is sending, nor overwrites something newer.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
import redis
import redis.asyncio

from ops.letters.rehearsal import occasion_of
from ops.state import scripts
from ops.trial import Attempt
from worker.adapters.gate import RedisGate
from worker.adapters.numbers import RedisNumbers
from worker.adapters.partition import RedisPartition
from worker.adapters.sender import HttpSender
from worker.contract.connection import redis_errors
from worker.contract.keys import PartitionKeys, partition_of
from worker.contract.settings import Destination, Settings
from worker.contract.words import LIVE, Direction
from worker.core.gate import Closed, Slot
from worker.core.ledger import (
    Fact,
    Record,
    judge,
    memberships,
    pack,
    unpack,
    with_delivered,
    with_tried,
)
from worker.core.verdicts import Accepted, Failed, Unreadable, Verdict
from worker.destinations.api import Answer, Api, Knowledge, NotSendable, Shaped
from worker.destinations.registry import api_named
from worker.destinations.sending import NoAnswer, OutgoingRequest
from worker.errors import LeaseLost
from worker.partition import Note, NotedDelivery, Settlement

_LEASE_WAIT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.1
_SLOT_SHARE: Final = 0.2
_REQUEST_SHARE: Final = 0.6
"""Of the lease: a request must end, and be settled, while it holds; nothing renews it here."""

Outcome = Literal["delivered", "refused", "unsure", "not_applied"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was made.

    Args:
        status: 0 = there was no answer.
        answer: As it came.
    """

    url: str
    request: bytes = field(repr=False)
    status: int
    answer: bytes = field(repr=False)
    outcome: Outcome
    message: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """No request was made."""

    reason: str
    message: str


async def send(
    attempt: Attempt,
    settings: Settings,
    client: redis.asyncio.Redis,
    sync_client: redis.Redis,
    partitions: int,
) -> Sent | NotSent:
    """Send an event that was rendered and shaped.

    Raises:
        LeaseLost: The partition is busy, or was taken over.
        RedisUnavailable: Redis can't be asked.
    """
    number = partition_of(attempt.event.profile_key, partitions)
    place = PartitionKeys(attempt.trigger.destination, number)
    partition = RedisPartition(
        client,
        place,
        lease_seconds=settings.delivery.lease_seconds,
        retention_seconds=settings.delivery.ledger_retention_seconds,
        owner="segrelay try",
    )
    trial = _Trial(attempt, settings, client, sync_client, partition)
    await trial.take()
    try:
        return await trial.send()
    finally:
        await partition.release({}, (), keep_if_due=False)


@dataclass(frozen=True, slots=True)
class _Trial:
    attempt: Attempt
    settings: Settings
    client: redis.asyncio.Redis
    sync_client: redis.Redis
    partition: RedisPartition

    @property
    def destination(self) -> Destination:
        return self.settings.destinations[self.attempt.trigger.destination]

    @property
    def api(self) -> Api:
        return api_named(self.destination.api)

    async def take(self) -> None:
        """Take the lease, when nothing about the person is under way or unsure."""
        seconds = _LEASE_WAIT_SECONDS + self.settings.delivery.late_seconds
        gives_up_at = time.monotonic() + seconds
        while time.monotonic() < gives_up_at:
            if not await self._is_a_vanished_workers():
                holding = await self.partition.take()
                if holding is not None and not self._is_noted(holding.notes):
                    return
                if holding is not None:
                    await self.partition.release({}, (), keep_if_due=False)
            await asyncio.sleep(_LOOK_SECONDS)
        raise LeaseLost(
            f"The person's partition was busy for {seconds:.0f} s, or an earlier request about them"
            " is unsure; nothing was sent."
        )

    async def _is_a_vanished_workers(self) -> bool:
        """Say whether a worker died while rendering: the next worker has to learn that."""
        with redis_errors():
            found: Any = await self.client.execute_command(  # type: ignore[no-untyped-call]
                "EXISTS", self.partition.keys.rendering
            )
        return bool(found)

    def _is_noted(self, notes: tuple[Note, ...]) -> bool:
        digest = self.attempt.candidate.header.digest
        return any(delivery.digest == digest for note in notes for delivery in note.deliveries)

    async def send(self) -> Sent | NotSent:
        """Ask the ledger, correct what is newer, and send."""
        header = self.attempt.candidate.header
        numbers = RedisNumbers(self.client)
        await numbers.read()
        await numbers.learn([header.audience], [self.attempt.trigger.name])
        (text,) = await self.partition.peek([header.digest])
        record = unpack(text)
        fact = Fact(
            audience=numbers.audience(header.audience),
            trigger=numbers.trigger(self.attempt.trigger.name),
            direction=header.direction,
            time_us=header.time_us,
        )
        reason = None if header.direction is Direction.CHANGE else judge(record, fact)
        if reason is not None:
            return NotSent(reason.value, "The ledger says that it need not be sent.")
        shaped = self._corrected(record, fact, numbers)
        if isinstance(shaped, NotSendable):
            return NotSent(shaped.reason.value, shaped.message)
        return await self._request(shaped, record, fact)

    def _corrected(self, record: Record, fact: Fact, numbers: RedisNumbers) -> Shaped | NotSendable:
        shaped = self.attempt.rehearsed.shaped
        assert shaped is not None
        header = self.attempt.candidate.header
        known = memberships(record, fact)
        occasion = occasion_of(
            header, self.attempt.trigger, self.settings, now_us=1000 * header.accepted_ms
        )
        knowledge = Knowledge(
            numbers.slugs(known.inside),
            numbers.slugs(known.outside),
            known.stale,
            known.stale_opt_ins,
        )
        return self.api.correct(shaped, occasion, knowledge)

    async def _request(self, shaped: Shaped, record: Record, fact: Fact) -> Sent | NotSent:
        authorization = self.settings.authorization_of(self.destination)
        gate = RedisGate(self.client, self.destination, authorization)
        request = self._outgoing(shaped)
        slot = await self._slot(gate)
        if isinstance(slot, Closed):
            return NotSent(slot.state, slot.message or slot.reason)
        note = self._note()
        await self.partition.note(note)
        answer = await self._answer(request)
        verdict = self._verdict(request, answer, users=len(shaped.users))
        is_taken = isinstance(verdict, Accepted) and not verdict.refused
        if is_taken:
            data_sent = any("attributes" in user for user in shaped.users)
            self._teach(with_delivered(record, fact, data_sent=data_sent))
        await self._settle(note, verdict, with_tried(record, fact))
        trigger = self.attempt.trigger.name
        await gate.report(slot, verdict, trigger=trigger, delivered=int(is_taken))
        return _sent(request, answer, verdict)

    def _outgoing(self, shaped: Shaped) -> OutgoingRequest:
        authorization = self.settings.authorization_of(self.destination)
        headers = authorization.headers if authorization else {}
        parameters = authorization.parameters if authorization else {}
        return OutgoingRequest(
            shaped.url or self.settings.url_of(self.attempt.trigger),
            {name: secret.reveal() for name, secret in headers.items()},
            {name: secret.reveal() for name, secret in parameters.items()},
            self.api.assemble([orjson.dumps(user) for user in shaped.users], shaped.root),
            self.destination.api,
        )

    async def _slot(self, gate: RedisGate) -> Slot | Closed:
        """Book a slot and sleep until it, while the lease holds."""
        horizon_seconds = _SLOT_SHARE * self.settings.delivery.lease_seconds
        slot = await gate.book(
            kind=LIVE, trigger=self.attempt.trigger.name, horizon_seconds=horizon_seconds
        )
        if isinstance(slot, Slot):
            await asyncio.sleep(max(0.0, (slot.at_ms - slot.now_ms) / 1000))
        return slot

    def _note(self) -> Note:
        h = self.attempt.candidate.header
        delivery = NotedDelivery("", h.digest, h.audience, h.direction, h.time_us)
        return Note(secrets.token_hex(8), self.attempt.trigger.name, (delivery,))

    async def _answer(self, request: OutgoingRequest) -> Answer | NoAnswer:
        delivery = self.settings.delivery
        deadline_seconds = min(
            delivery.request_deadline_seconds, _REQUEST_SHARE * delivery.lease_seconds
        )
        sender = HttpSender(connections=1, ipv4_only=delivery.ipv4_only)
        try:
            return await sender.send(request, deadline_seconds)
        finally:
            await sender.close()

    def _verdict(
        self, request: OutgoingRequest, answer: Answer | NoAnswer, *, users: int
    ) -> Verdict:
        if isinstance(answer, NoAnswer):
            return answer.verdict
        return self.api.classify(answer, users=users, url=request.url)

    async def _settle(self, note: Note, verdict: Verdict, tried: Record) -> None:
        """Close the note; or open it, where the request may still take effect."""
        trigger = self.attempt.trigger.name
        counts = {f"requests|{trigger}": 1}
        if not _is_unsure(verdict):
            await self.partition.settle(Settlement(note_id=note.note_id, counts=counts))
            return
        await self.partition.settle(
            Settlement(
                note_id=note.note_id,
                open_seconds=self.settings.delivery.late_seconds,
                ledgers={self.attempt.candidate.header.digest: pack(tried)},
                counts=counts | {f"unanswered|{trigger}": 1},
            )
        )

    def _teach(self, record: Record) -> None:
        k = self.partition.keys
        retention_ms = round(1000 * self.settings.delivery.ledger_retention_seconds)
        call = scripts.Call(
            (k.lease, k.ledger(self.attempt.candidate.header.digest)),
            (self.partition.token, pack(record), retention_ms),
        )
        (is_written,) = scripts.run(self.sync_client, "teach", [call])
        if not is_written:
            raise LeaseLost("It was delivered, but the partition was taken over meanwhile.")


def _is_unsure(verdict: Verdict) -> bool:
    return isinstance(verdict, Unreadable) or (
        isinstance(verdict, Failed) and verdict.possibly_applied
    )


def _sent(request: OutgoingRequest, answer: Answer | NoAnswer, verdict: Verdict) -> Sent:
    status, body = (answer.status, answer.body) if isinstance(answer, Answer) else (0, b"")
    outcome, message = _outcome(verdict)
    return Sent(request.url, request.body, status, body, outcome, message)


def _outcome(verdict: Verdict) -> tuple[Outcome, str]:
    message = str(getattr(verdict, "message", ""))
    match verdict:
        case Accepted(refused) if refused:
            return "refused", next(iter(refused.values())).message
        case Accepted():
            return "delivered", message
        case _:
            return ("unsure" if _is_unsure(verdict) else "not_applied"), message

"""Trying one event: rendered, shaped and, if wanted, sent by all the rules of a drain.

Whoever sends holds the partition's lease meanwhile, asks the ledger first and tells it afterwards:
so the event neither overtakes what a worker is sending, nor overwrites something newer.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson
import redis
import redis.asyncio

from ops import scripts
from ops.rehearsal import Candidate, Rehearsed, occasion_of
from producer.matching import pack_exported, pack_whole
from producer.payloads import Reading, Refused, ResolveAudience, events_of
from worker.adapters.gate import RedisGate
from worker.adapters.numbers import RedisNumbers
from worker.adapters.partition import RedisPartition
from worker.adapters.sender import HttpSender
from worker.contract.events import Event, decode_profile, header_of
from worker.contract.keys import PartitionKeys, partition_of
from worker.contract.settings import Settings, Trigger
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
from worker.destinations.api import Answer, Knowledge, NotSendable, Shaped
from worker.destinations.registry import api_named
from worker.destinations.sending import NoAnswer, OutgoingRequest
from worker.errors import LeaseLost, UsageWrong
from worker.partition import Holding, Note, NotedDelivery, Settlement

_LEASE_WAIT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.1
_SLOT_WAIT_SECONDS: Final = 30.0
_OF_LEASE: Final = 0.7
"""A request must end, and be settled, while the lease holds: nothing renews it here."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An event, the trigger it is tried with, and what came of rendering it."""

    event: Event
    trigger: Trigger
    candidate: Candidate
    rehearsed: Rehearsed


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was made.

    Args:
        status: 0 = there was no answer.
        answer: As it came.
        outcome: What it means.
    """

    url: str
    request: bytes
    status: int
    answer: bytes
    outcome: Literal["delivered", "refused", "unsure", "not_applied"]
    message: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """No request was made."""

    reason: str
    message: str


def event_of(
    path: Path,
    trigger: Trigger,
    settings: Settings,
    *,
    now_us: int,
    resolve_audience: ResolveAudience,
) -> Event:
    """Return the event of a file that a trigger would be tried with: of its direction.

    Raises:
        UsageWrong: The file can't be read, or has none.
    """
    reading = Reading(
        now_us,
        now_us,
        settings.delivery.identity,
        resolve_audience,
        state=False,
        skip_hook=bool(trigger.skip_hook),
    )
    found = list(events_of(_parsed(path), reading))
    events = [event for event in found if isinstance(event, Event)]
    fitting = [event for event in events if event.direction == trigger.on]
    wanted = [event for event in fitting if trigger.wants(event.audience)]
    if fitting:
        return (wanted or fitting)[0]
    refused = [item for item in found if isinstance(item, Refused)]
    if refused and not events:
        raise UsageWrong(f"{path}: {refused[0].reason.value}: {refused[0].message}")
    raise UsageWrong(f"{path}: holds no {trigger.on} event, which {trigger.name} is for.")


def _parsed(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise UsageWrong(f"{path}: can't be read ({error.strerror}).") from error
    except orjson.JSONDecodeError as error:
        raise UsageWrong(f"{path}:{error.lineno}: is not JSON ({error.msg}).") from error


def candidate_of(event: Event, trigger: Trigger, settings: Settings, *, now_us: int) -> Candidate:
    """Return what a delivery of an event would be rendered from."""
    identity = settings.delivery.identity
    fields = trigger.export_fields
    packed = pack_exported(event, fields, identity) if fields else pack_whole(event)
    header = header_of(event, accepted_ms=now_us // 1000)
    return Candidate("", trigger.name, header, decode_profile(packed))


class Courier:
    """Sends one attempt; everything that it opens is closed by `send`."""

    def __init__(self, url: str, settings: Settings, sync_client: redis.Redis) -> None:
        self._url = url
        self._settings = settings
        self._sync_client = sync_client

    async def send(self, attempt: Attempt, client: redis.asyncio.Redis) -> Sent | NotSent:
        """Send by all the rules: lease, ledger, gate, note.

        Raises:
            LeaseLost: The partition is busy, or was taken over.
            RedisUnavailable: Redis can't be asked.
        """
        settings = self._settings
        count = settings.redis.partitions
        place = PartitionKeys(
            attempt.trigger.destination, partition_of(attempt.event.profile_key, count)
        )
        partition = RedisPartition(
            client,
            place,
            lease_seconds=settings.delivery.lease_seconds,
            retention_seconds=settings.delivery.ledger_retention_seconds,
            owner="segrelay try",
        )
        holding = await self._take(partition, attempt)
        try:
            return await self._sent(attempt, partition, holding, client)
        finally:
            await partition.release({}, (), keep_if_due=False)

    async def _take(self, partition: RedisPartition, attempt: Attempt) -> Holding:
        """Wait for the lease, and for open notes about the profile."""
        digest = attempt.candidate.header.digest
        async with _within(_LEASE_WAIT_SECONDS + self._settings.delivery.late_seconds):
            while True:
                holding = await partition.take()
                if holding is not None and not _is_noted(holding, digest):
                    return holding
                if holding is not None:
                    await partition.release({}, (), keep_if_due=False)
                await asyncio.sleep(_LOOK_SECONDS)

    async def _sent(
        self,
        attempt: Attempt,
        partition: RedisPartition,
        holding: Holding,
        client: redis.asyncio.Redis,
    ) -> Sent | NotSent:
        header = attempt.candidate.header
        numbers = RedisNumbers(client)
        await numbers.learn([header.audience], [attempt.trigger.name])
        await numbers.learn_all()
        (text,) = await partition.peek([header.digest])
        record = unpack(text)
        fact = Fact(
            audience=numbers.audience(header.audience),
            trigger=numbers.trigger(attempt.trigger.name),
            direction=header.direction,
            time_us=header.time_us,
        )
        reason = judge(record, fact)
        if reason is not None and header.direction is not Direction.CHANGE:
            return NotSent(reason.value, "The ledger says that it need not be sent.")
        shaped = self._corrected(attempt, record, fact, numbers)
        if isinstance(shaped, NotSendable):
            return NotSent(shaped.reason.value, shaped.message)
        return await self._request(attempt, partition, shaped, (record, fact), client)

    def _corrected(
        self, attempt: Attempt, record: Record, fact: Fact, numbers: RedisNumbers
    ) -> Shaped | NotSendable:
        shaped = attempt.rehearsed.shaped
        assert shaped is not None
        header = attempt.candidate.header
        known = memberships(record, fact)
        occasion = occasion_of(
            header, attempt.trigger, self._settings, now_us=1000 * header.accepted_ms
        )
        knowledge = Knowledge(
            frozenset(map(numbers.slug, known.inside)),
            frozenset(map(numbers.slug, known.outside)),
            known.stale,
            known.stale_opt_ins,
        )
        return self._api(attempt).correct(shaped, occasion, knowledge)

    def _api(self, attempt: Attempt) -> Any:
        return api_named(self._settings.destinations[attempt.trigger.destination].api)

    async def _request(
        self,
        attempt: Attempt,
        partition: RedisPartition,
        shaped: Shaped,
        known: tuple[Record, Fact],
        client: redis.asyncio.Redis,
    ) -> Sent | NotSent:
        settings = self._settings
        destination = settings.destinations[attempt.trigger.destination]
        authorization = settings.authorization_of(destination)
        gate = RedisGate(client, destination, authorization)
        slot = await _slot(gate, attempt.trigger.name, self._longest_seconds)
        if isinstance(slot, Closed):
            return NotSent(slot.state, slot.message or slot.reason)
        note = _note(attempt)
        await partition.note(note)
        request = OutgoingRequest(
            shaped.url or settings.url_of(attempt.trigger),
            {k: v.reveal() for k, v in authorization.headers.items()} if authorization else {},
            {k: v.reveal() for k, v in authorization.parameters.items()} if authorization else {},
            self._api(attempt).assemble([orjson.dumps(u) for u in shaped.users], shaped.root),
            destination.api,
        )
        answer = await self._answer(request)
        verdict = (
            answer.verdict
            if isinstance(answer, NoAnswer)
            else self._api(attempt).classify(answer, users=len(shaped.users), url=request.url)
        )
        await self._settle(attempt, partition, note, verdict, known, shaped)
        is_taken = isinstance(verdict, Accepted) and not verdict.refused
        await gate.report(slot, verdict, trigger=attempt.trigger.name, delivered=int(is_taken))
        return _sent(request, answer, verdict)

    @property
    def _longest_seconds(self) -> float:
        delivery = self._settings.delivery
        return min(delivery.request_deadline_seconds, _OF_LEASE * delivery.lease_seconds)

    async def _answer(self, request: OutgoingRequest) -> Answer | NoAnswer:
        sender = HttpSender(connections=1, ipv4_only=self._settings.delivery.ipv4_only)
        try:
            return await sender.send(request, self._longest_seconds)
        finally:
            await sender.close()

    async def _settle(
        self,
        attempt: Attempt,
        partition: RedisPartition,
        note: Note,
        verdict: Verdict,
        known: tuple[Record, Fact],
        shaped: Shaped,
    ) -> None:
        record, fact = known
        digest = attempt.candidate.header.digest
        trigger = attempt.trigger.name
        counts = {f"requests|{trigger}": 1}
        if isinstance(verdict, Accepted) and not verdict.refused:
            data_sent = any("attributes" in user for user in shaped.users)
            self._teach(partition, digest, with_delivered(record, fact, data_sent=data_sent))
        if _is_unsure(verdict):
            await partition.settle(
                Settlement(
                    note_id=note.note_id,
                    open_seconds=self._settings.delivery.late_seconds,
                    tried={digest: pack(with_tried(record, fact))},
                    counts=counts | {f"unanswered|{trigger}": 1},
                )
            )
            return
        await partition.settle(Settlement(note_id=note.note_id, counts=counts))

    def _teach(self, partition: RedisPartition, digest: bytes, record: Record) -> None:
        retention_ms = round(1000 * self._settings.delivery.ledger_retention_seconds)
        names = (partition.keys.lease, partition.keys.ledger(digest))
        call = scripts.Call(names, (partition.token, pack(record), retention_ms))
        (is_written,) = scripts.run(self._sync_client, "teach", [call])
        if not is_written:
            raise LeaseLost("The partition was taken over: the ledger does not know of this.")


def _within(seconds: float) -> Any:
    return _Within(seconds)


class _Within:
    """A time limit whose end says that the partition is busy."""

    def __init__(self, seconds: float) -> None:
        self._limit = asyncio.timeout(seconds)
        self._seconds = seconds

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self._limit.__aexit__(*error)
        except TimeoutError:
            raise LeaseLost(
                f"The person's partition was busy for {self._seconds:.0f} s; nothing was sent."
            ) from None


def _is_noted(holding: Holding, digest: bytes) -> bool:
    return any(delivery.digest == digest for note in holding.notes for delivery in note.deliveries)


async def _slot(gate: RedisGate, trigger: str, usable_seconds: float) -> Slot | Closed:
    """Book a slot and sleep until it; the lease must still hold for the request."""
    horizon = min(_SLOT_WAIT_SECONDS, max(usable_seconds / 4, 1.0))
    while True:
        slot = await gate.book(kind=LIVE, trigger=trigger, horizon_seconds=horizon)
        if isinstance(slot, Closed):
            return slot
        await asyncio.sleep(max(0.0, (slot.at_ms - slot.now_ms) / 1000) + 0.001 * random.random())  # noqa: S311 - no secret
        return slot


def _note(attempt: Attempt) -> Note:
    h = attempt.candidate.header
    delivery = NotedDelivery("", h.digest, h.audience, h.direction, h.time_us)
    return Note(secrets.token_hex(8), attempt.trigger.name, (delivery,))


def _is_unsure(verdict: Verdict) -> bool:
    return isinstance(verdict, Unreadable) or (
        isinstance(verdict, Failed) and verdict.possibly_applied
    )


def _sent(request: OutgoingRequest, answer: Answer | NoAnswer, verdict: Verdict) -> Sent:
    status, body = (answer.status, answer.body) if isinstance(answer, Answer) else (0, b"")
    message = str(getattr(verdict, "message", ""))
    outcome: Literal["delivered", "refused", "unsure", "not_applied"]
    match verdict:
        case Accepted(refused) if refused:
            outcome = "refused"
            message = next(iter(refused.values())).message
        case Accepted():
            outcome = "delivered"
        case _:
            outcome = "unsure" if _is_unsure(verdict) else "not_applied"
    return Sent(request.url, request.body, status, body, outcome, message)


def who_of(shaped: Shaped) -> Mapping[str, Any]:
    """Return by what the destination knows the person."""
    user = shaped.users[0] if shaped.users else {}
    return {key: user[key] for key in ("identifiers", "insider_id") if key in user}

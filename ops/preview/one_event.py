"""Sends one event by a drain of its own, with all the rules of a worker.

The drain gets a partition with this one event, which is in no stream. The rest is the real
partition: lease, ledger and intents. The event was never accepted, so nothing of it is counted as
delivered, skipped or dead, and no dead letter is written; the request is counted, and the ledger
learns of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from segrelay.ops.terminal.moments import awaited
from segrelay.producer.wakeups import Waker
from segrelay.worker.adapters.redis.gate import read_state
from segrelay.worker.batch.delivery import Delivery, Failure
from segrelay.worker.batch.partition import (
    Hold,
    Intent,
    Partition,
    ReadEntries,
    ReadRange,
    Release,
    Settlement,
    TakenPartition,
)
from segrelay.worker.batch.read import order_of
from segrelay.worker.batch.send import Stop
from segrelay.worker.checks.preview import Candidate
from segrelay.worker.contract.events import encode_header, pack_profile
from segrelay.worker.contract.keys import stream_name
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.words import LIVE
from segrelay.worker.core.compact import parsed
from segrelay.worker.core.gate import LaneKind, gate_id
from segrelay.worker.core.verdicts import Accepted, Failed, Unreadable, Verdict
from segrelay.worker.destinations.api import (
    Answer,
    Api,
    NoAnswer,
    OutgoingRequest,
    Permit,
    Sender,
    granted,
)
from segrelay.worker.destinations.registry import api_of
from segrelay.worker.drain import Drain
from segrelay.worker.errors import FormatUnknown, LeaseLost
from segrelay.worker.node.runtime import Runtime, runtime_for


@dataclass(slots=True)
class OneEvent:
    """A drain's real partition, with one event in place of its streams."""

    partition: Partition
    delivery: Delivery
    settled: Delivery | None = None
    _is_over: bool = False

    async def take(self) -> TakenPartition | None:
        """Take the lease, without the streams of other deliveries and their delays."""
        holding = await self.partition.take()
        streams = await self.streams()
        return holding and replace(holding, streams=streams, holds={}, waits={}, backoffs={})

    async def streams(self) -> tuple[str, ...]:
        """Return the event's stream; none once a request was made or the event is settled."""
        return () if self._is_over else (self.delivery.stream,)

    async def read(self, ranges: Sequence[ReadRange]) -> list[ReadEntries]:
        """Return the event for each range that begins before the event's id."""
        return [ReadEntries(self._behind(each.after_id), is_all=True) for each in ranges]

    def _behind(self, after_id: str) -> list[Delivery]:
        is_read = after_id and order_of(after_id) >= order_of(self.delivery.entry_id)
        return [] if is_read or self._is_over else [self.delivery]

    async def ledgers(
        self,
        digests: Sequence[bytes],
        rendering: Iterable[str] = (),  # noqa: ARG002 - no other worker could find it
        *,
        hears: bool = False,  # noqa: ARG002 - it has one event
    ) -> list[bytes | None]:
        """Read the packed ledger records of these profiles."""
        return await self.partition.ledgers(digests)

    async def intent(self, intent: Intent) -> int:
        """Write an intent, renew the lease; returns now (ms, Redis' clock)."""
        self._is_over = True
        return await self.partition.intent(intent)

    async def settle(self, settlement: Settlement) -> int:
        """Settle, without delays for the event or its trigger."""
        end_ms = await self.partition.settle(replace(settlement, waits={}, backoffs={}))
        self.settled = next(iter(settlement.settled), self.settled)
        self._is_over = self._is_over or self.settled is not None
        return end_ms

    async def release(
        self,
        holds: Mapping[str, Hold | None],  # noqa: ARG002 - of the stream that is not there
        paused: Iterable[str],
        *,
        suspects: Iterable[str] = (),
        labels: Iterable[str] = (),
        keep_for: Iterable[LaneKind] = (),  # noqa: ARG002 - what is due is the workers' work
    ) -> Release:
        """Give the lease of the partition back."""
        return await self.partition.release({}, paused, suspects=suspects, labels=labels)

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the real partition."""
        return getattr(self.partition, name)


class NoStreaks:
    """A fake of the failure counts: an event that is tried pauses no trigger."""

    async def may_die(self, trigger: str, failure: Failure, count: int) -> int:  # noqa: ARG002
        """Allow all `count` dead letters."""
        return count

    async def broken(self, trigger: str) -> None:
        """Do nothing: no streak of failures was counted."""

    async def pause(self, trigger: str, failure: Failure) -> None:
        """Do nothing: a preview pauses no trigger."""

    async def stop(self, trigger: str, reason: str) -> None:  # noqa: ARG002
        """End the preview: another version of segrelay wrote the person's record."""
        raise FormatUnknown(reason)


@dataclass(slots=True)
class Recording:
    """A sender that remembers the last request and its answer."""

    sender: Sender
    request: OutgoingRequest | None = None
    answer: Answer | NoAnswer | None = field(default=None, repr=False)

    async def send(
        self, request: OutgoingRequest, deadline_seconds: float, permit: Permit = granted
    ) -> Answer | NoAnswer:
        """Send a request and remember it; see `Sender`."""
        self.request, self.answer = request, None
        self.answer = await self.sender.send(request, deadline_seconds, permit)
        return self.answer

    async def close(self) -> None:
        """Close the sender behind it."""
        await self.sender.close()


_WAIT_SECONDS: Final = 15.0
"""Seconds to wait for a partition that a worker drains, or that has an unsure request."""
_LOOK_SECONDS: Final = 0.1
_SEQUENCE: Final = 1 << 32
"""The smallest sequence number in the id of a preview's entry; ids from Redis are far below."""
_CLOSED: Final = frozenset({"paused", "broken"})

PreviewOutcome = Literal["delivered", "refused", "unsure", "not_applied"]


@dataclass(frozen=True, slots=True)
class PreviewSent:
    """A request that a preview has made, and its answer.

    Args:
        status: 0 = there was no answer.
    """

    request: bytes = field(repr=False)
    status: int
    answer: bytes = field(repr=False)
    outcome: PreviewOutcome
    message: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """The reason why no request was made."""

    reason: str
    message: str


def send(
    candidate: Candidate,
    partition: int,
    settings: Settings,
    client: Redis,
    waker: Waker,
) -> PreviewSent | NotSent:
    """Send an event that was previewed; tries again while its partition is busy.

    Raises:
        LeaseLost: The partition stayed busy, or an earlier request about the person unsure.
    """
    trigger = settings.triggers[candidate.trigger]
    # Only this trigger's template is loaded and checked.
    alone = settings.model_copy(update={"triggers": {trigger.name: trigger}})
    with closing(runtime_for(alone)) as runtime:
        return _Preview(candidate, trigger, partition, settings, client, waker, runtime).sent()


@dataclass(frozen=True, slots=True)
class _Preview:
    candidate: Candidate
    trigger: Trigger
    partition: int
    settings: Settings
    client: Redis
    waker: Waker
    runtime: Runtime
    kept: list[tuple[OneEvent, Recording]] = field(default_factory=list)

    def sent(self) -> PreviewSent | NotSent:
        """Drain until the event is sent or settled."""
        seconds = _WAIT_SECONDS + self.settings.delivery.late_seconds
        result = awaited(self._once, seconds, _LOOK_SECONDS)
        if result:
            return result
        raise LeaseLost(
            f"The person's partition was busy for {seconds:.0f} s, or an earlier request about them"
            " is unsure; nothing was sent."
        )

    def _once(self) -> PreviewSent | NotSent | None:
        destination, number = self.trigger.destination, self.partition
        _, queue = self.runtime.drain(destination, number, Stop(), adapt=self._adapted)
        if queue:
            self.waker.wake(destination, number, queue=queue)
        if not self.kept:
            return NotSent("paused", f"{destination} is paused: `segrelay resume {destination}`.")
        one, recording = self.kept[-1]
        if recording.request:
            return self._answered(recording)
        if one.settled and one.settled.reason:
            return NotSent(one.settled.reason.value, one.settled.remark or "It need not be sent.")
        return self._closed()

    def _adapted(self, drain: Drain) -> Drain:
        """Replace the entries of a drain's partition by the event that is tried.

        Pauses of triggers are ignored, so that repairs can be tried.
        """
        if drain.paused is None:
            return drain
        header = self.candidate.header
        entry_id = f"{header.accepted_ms}-{_SEQUENCE + secrets.randbelow(_SEQUENCE)}"
        stream, profile = stream_name(LIVE, self.trigger.name), pack_profile(self.candidate.profile)
        delivery = Delivery.of(stream, entry_id, encode_header(header), profile)
        one = OneEvent(drain.partition, delivery)
        recording = Recording(drain.sender)
        self.kept.append((one, recording))
        return replace(
            drain,
            partition=one,
            sender=recording,
            streaks=NoStreaks(),
            paused=frozenset(),
            scopes={},
        )

    def _closed(self) -> NotSent | None:
        """Return the reason why the gate stays closed; None = it may open a moment later."""
        destination = self.settings.destinations[self.trigger.destination]
        gate = read_state(self.client, gate_id(destination.base_url, destination.gate_scope))
        if gate.state not in _CLOSED:
            return None
        return NotSent(gate.state, gate.message or gate.reason)

    def _answered(self, recording: Recording) -> PreviewSent:
        request, answer = recording.request, recording.answer
        assert request is not None
        assert answer is not None
        status, body = (answer.status, answer.body) if isinstance(answer, Answer) else (0, b"")
        outcome, message = _outcome(
            _verdict(api_of(self.settings, self.trigger), request.body, answer, request.url)
        )
        return PreviewSent(request.body, status, body, outcome, message)


def _verdict(api: Api, body: bytes, answer: Answer | NoAnswer, url: str) -> Verdict:
    if isinstance(answer, NoAnswer):
        return answer.verdict
    document = parsed(body)
    users = document.get("users") if isinstance(document, dict) else None
    count = len(users) if isinstance(users, list) else 1
    return api.classify(answer, users=count, url=url)


def _outcome(verdict: Verdict) -> tuple[PreviewOutcome, str]:
    message = str(getattr(verdict, "message", ""))
    match verdict:
        case Accepted(refused) if refused:
            return "refused", next(iter(refused.values()))
        case Accepted():
            return "delivered", message
        case Unreadable() | Failed(possibly_applied=True):
            return "unsure", message
        case _:
            return "not_applied", message

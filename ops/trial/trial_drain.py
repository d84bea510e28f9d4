"""Sending one event by a drain of its own, with all the rules of a worker."""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import redis

from ops.terminal.moments import awaited
from ops.trial.one_event import NoStreaks, OneEvent, Recording
from producer.doorbell import Doorbell
from worker.adapters.redis.gate import read_state
from worker.batch.canary_shares import CanaryShares
from worker.batch.partition import Delivery
from worker.batch.sending.interrupt_watch import Stop
from worker.checks.rehearsal import Candidate
from worker.contract.events import encode_header, pack_profile
from worker.contract.keys import stream_name
from worker.contract.settings import Settings, Trigger
from worker.contract.words import LIVE
from worker.core.compact import parsed
from worker.core.gate import gate_id
from worker.core.verdicts import Accepted, Failed, Unreadable, Verdict
from worker.destinations.api import Answer, Api
from worker.destinations.registry import api_of
from worker.destinations.sending import NoAnswer
from worker.drain import Drain
from worker.errors import LeaseLost
from worker.node.process.runtime import Runtime, runtime_for

_WAIT_SECONDS: Final = 15.0
"""Seconds to wait for a partition that a worker drains, or that has an unsure request."""
_LOOK_SECONDS: Final = 0.1
_SEQUENCE: Final = 1 << 32
"""The smallest sequence number in the id of a trial's entry; ids from Redis are far below."""
_CLOSED: Final = frozenset({"paused", "broken"})

TrialOutcome = Literal["delivered", "refused", "unsure", "not_applied"]


@dataclass(frozen=True, slots=True)
class TrialSent:
    """A request that a trial has made, and its answer.

    Args:
        status: 0 = there was no answer.
    """

    request: bytes = field(repr=False)
    status: int
    answer: bytes = field(repr=False)
    outcome: TrialOutcome
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
    client: redis.Redis,
    doorbell: Doorbell,
) -> TrialSent | NotSent:
    """Send an event that was rehearsed; tries again while its partition is busy.

    Raises:
        LeaseLost: The partition stayed busy, or an earlier request about the person unsure.
    """
    trigger = settings.triggers[candidate.trigger]
    # Only this trigger's template is loaded and checked.
    alone = settings.model_copy(update={"triggers": {trigger.name: trigger}})
    with closing(runtime_for(alone)) as runtime:
        return _Trial(candidate, trigger, partition, settings, client, doorbell, runtime).sent()


@dataclass(frozen=True, slots=True)
class _Trial:
    candidate: Candidate
    trigger: Trigger
    partition: int
    settings: Settings
    client: redis.Redis
    doorbell: Doorbell
    runtime: Runtime
    kept: list[tuple[OneEvent, Recording]] = field(default_factory=list)

    def sent(self) -> TrialSent | NotSent:
        """Drain until the event is sent or settled."""
        seconds = _WAIT_SECONDS + self.settings.delivery.late_seconds
        result = awaited(self._once, seconds, _LOOK_SECONDS)
        if result:
            return result
        raise LeaseLost(
            f"The person's partition was busy for {seconds:.0f} s, or an earlier request about them"
            " is unsure; nothing was sent."
        )

    def _once(self) -> TrialSent | NotSent | None:
        destination, number = self.trigger.destination, self.partition
        _, queue = self.runtime.drain(destination, number, Stop(), adapt=self._adapted)
        if queue:
            self.doorbell.ring(destination, number, queue=queue)
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
            canary_shares=CanaryShares(),
            paused=frozenset(),
            meanings={},
        )

    def _closed(self) -> NotSent | None:
        """Return the reason why the gate stays closed; None = it may open a moment later."""
        destination = self.settings.destinations[self.trigger.destination]
        gate = read_state(self.client, gate_id(destination.base_url, destination.gate_scope))
        if gate.state not in _CLOSED:
            return None
        return NotSent(gate.state, gate.message or gate.reason)

    def _answered(self, recording: Recording) -> TrialSent:
        request, answer = recording.request, recording.answer
        assert request is not None
        assert answer is not None
        status, body = (answer.status, answer.body) if isinstance(answer, Answer) else (0, b"")
        outcome, message = _outcome(
            _verdict(api_of(self.settings, self.trigger), request.body, answer, request.url)
        )
        return TrialSent(request.body, status, body, outcome, message)


def _verdict(api: Api, body: bytes, answer: Answer | NoAnswer, url: str) -> Verdict:
    if isinstance(answer, NoAnswer):
        return answer.verdict
    document = parsed(body)
    users = document.get("users") if isinstance(document, dict) else None
    count = len(users) if isinstance(users, list) else 1
    return api.classify(answer, users=count, url=url)


def _outcome(verdict: Verdict) -> tuple[TrialOutcome, str]:
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

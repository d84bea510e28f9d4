"""`FakeGate`: the gate in memory, on a clock of the caller's. Proved by the conformance tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from segrelay.worker.core.gate import (
    MICROSECONDS,
    POLICY,
    UNSENT,
    Closed,
    GateState,
    GateStatus,
    Heard,
    LaneKind,
    Open,
    Policy,
    SendTime,
    TriggerAnswers,
    heard,
)
from segrelay.worker.core.verdicts import Verdict
from tests.fakes.gate_hearing import Report, hear
from tests.fakes.gate_record import GateRecord
from tests.fakes.gate_rules import Booking, book, look_at_each, put_pause, resume, status, steady


@dataclass(slots=True)
class FakeGate:
    """Several share a record as several workers share a hash.

    Args:
        now_us: The time, in microseconds.
        rate_per_minute: The limit as this worker has it in its configuration.
        label: The authorization's.
        fingerprint: Of its credentials.
    """

    now_us: Callable[[], int]
    rate_per_minute: float = 25_000.0
    label: str = ""
    fingerprint: str = "none"
    policy: Policy = POLICY
    record: GateRecord = field(default_factory=GateRecord)

    async def look(self, triggers: Iterable[str]) -> dict[str, Open | Closed]:
        """Say of each trigger whether it is worth reading anything of it."""
        return look_at_each(
            self._seen(),
            rate=self.rate_per_minute,
            fingerprint=self.fingerprint,
            triggers=triggers,
            now=self.now_us(),
            policy=self.policy,
        )

    async def book(
        self,
        *,
        kind: LaneKind,
        triggers: Sequence[str],
        horizon_seconds: float,
        probe: bool = False,
    ) -> SendTime | Closed:
        """Book the next send time, unless it is further away than the horizon."""
        wanted = Booking(
            rate=self.rate_per_minute,
            fingerprint=self.fingerprint,
            kind=kind,
            triggers=tuple(triggers),
            horizon=round(horizon_seconds * MICROSECONDS),
            probe=probe,
        )
        return book(self.record, wanted, self.now_us(), self.policy)

    async def report(
        self,
        send_time: SendTime,
        verdict: Verdict,
        *,
        delivered: Mapping[str, int],
        batch: str = "",
    ) -> GateState:
        """Tell what came of a send time."""
        what = heard(verdict, policy=self.policy, label=self.label, fingerprint=self.fingerprint)
        return self._hear(send_time, what, delivered, batch)

    async def answers(self, triggers: Iterable[str]) -> dict[str, TriggerAnswers]:
        """Return how the last requests of each trigger were answered."""
        record, now = self._seen(), self.now_us()
        return {
            name: TriggerAnswers(
                (now - went) / MICROSECONDS
                if (went := record.went.get(name, now + 1)) <= now
                else None,
                record.noes.get(name, ""),
            )
            for name in triggers
        }

    async def cancel(self, send_time: SendTime) -> None:
        """Tell that nothing was sent."""
        if send_time.probe:
            self._hear(send_time, UNSENT, {}, "")

    def _hear(
        self, send_time: SendTime, what: Heard, delivered: Mapping[str, int], batch: str
    ) -> GateState:
        report = Report(
            heard=what,
            incident=send_time.incident,
            probe=send_time.probe,
            delivered={name: delivered.get(name, 0) for name in send_time.successes},
            batch=batch,
            fingerprint=self.fingerprint,
        )
        return hear(self.record, report, self.now_us(), self.policy)

    async def pause(self, reason: str, by: str) -> None:
        """Close it until a person resumes."""
        steady(self.record, self.now_us())
        put_pause(self.record, reason, by, self.now_us())

    async def resume(self, trigger: str = "") -> None:
        """Open it, a probe first; with a trigger, only let a probe of that one go first."""
        resume(self.record, self.now_us(), trigger)

    def status(self, configured_per_minute: float = 0.0) -> GateStatus:
        """Return how it stands; that changes nothing."""
        record = self._copy()
        steady(record, self.now_us())
        return status(record, rate=configured_per_minute, now=self.now_us(), policy=self.policy)

    def _seen(self) -> GateRecord:
        """Return a record for who only looks; a clock that was set back is outlived even so."""
        if self.record.seen > self.now_us():
            steady(self.record, self.now_us())
        return self._copy()

    def _copy(self) -> GateRecord:
        kept = {
            name: dict(getattr(self.record, name))
            for name in ("delivered", "went", "noes", "firsts")
        }
        return replace(self.record, **kept)

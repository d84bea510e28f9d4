"""What a gate decides: booking, hearing an answer, pausing. `lua/gate_*.lua` do the same in Redis.

Both are held together by the conformance tests: the same calls at the same times leave the same
record. All times are whole microseconds by one clock; factors are parts per million.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Literal, Self, assert_never

from worker.core.gate import (
    ACCESS_REFUSED,
    FAILING,
    LIVE_FIRST,
    MICROSECONDS,
    PROBING,
    RATE,
    TOO_MANY_REQUESTS,
    UNKNOWN_ANSWER,
    WHOLE,
    WORTH_WAITING_SECONDS,
    Closed,
    GateState,
    GateStatus,
    Kind,
    Open,
    Policy,
    Slot,
    State,
    spacing,
    tolerance,
)
from worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TooLarge,
    Unreadable,
    Verdict,
)

MOST_DOUBLINGS: Final = 10
MOST_SUSPECTS: Final = 20
DELIVERED: Final = "ok|"
FIRST: Final = "first|"


@dataclass(slots=True)
class GateRecord:
    """What is remembered of a gate; in Redis the fields of one hash. Changed in place.

    Args:
        tat: When the next regular slot would be.
        live: Until then a live request waits for its slot.
        factor: What is left of the rate.
        incident: Counts lowerings, closings and resumptions.
        good: 1 if a request succeeded since the last lowering.
        lowered_at: When the rate was lowered last.
        failed: The factor at which a 429 came last; 0 = none remembered.
        failed_at: When it came.
        raised_at: Up to when successes have raised the factor.
        closed: Closed until then, and afterwards one probe goes first; 0 = open.
        why: It closed: `too_many_requests` or `failing`.
        closes: How often it has closed in a row.
        first: 1 = a probe goes first.
        probing: A probe is on its way, and given up at this time; 0 = none.
        failures: In a row.
        suspects: The triggers that had them, with commas.
        avoid: The batch that failed last.
        said: What failed last, for a person.
        unread: Answers in a row that could not be read.
        pause: Why it is paused; "" = it is not.
        scope: `access` = only for the credentials in `refused`; `all`.
        by: Who paused it.
        since: When.
        about: For a person: what led to the pause.
        refused: Fingerprints of credentials that were refused, with commas.
        rates: `rate@seen` of all workers, with semicolons.
        delivered: By trigger: how many deliveries it has made.
        firsts: By trigger: it was resumed, and a probe of it goes first; as `probing`.
    """

    tat: int = 0
    live: int = 0
    factor: int = WHOLE
    incident: int = 0
    good: int = 1
    lowered_at: int = 0
    failed: int = 0
    failed_at: int = 0
    raised_at: int = 0
    closed: int = 0
    why: str = ""
    closes: int = 0
    first: int = 0
    probing: int = 0
    failures: int = 0
    suspects: str = ""
    avoid: str = ""
    said: str = ""
    unread: int = 0
    pause: str = ""
    scope: str = ""
    by: str = ""
    since: int = 0
    about: str = ""
    refused: str = ""
    rates: str = ""
    delivered: dict[str, int] = field(default_factory=dict)
    firsts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def loads(cls, stored: Mapping[str, str]) -> Self:
        """Return the record that stands in a hash."""
        record = cls()
        for place in fields(cls):
            text = stored.get(place.name)
            if text is not None:
                setattr(record, place.name, text if place.type == "str" else int(text))
        record.delivered = _by_trigger(stored, DELIVERED)
        record.firsts = _by_trigger(stored, FIRST)
        return record


def _by_trigger(stored: Mapping[str, str], prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): int(text)
        for name, text in stored.items()
        if name.startswith(prefix)
    }


@dataclass(frozen=True, slots=True)
class Booking:
    """What somebody wants to book.

    Args:
        rate: The limit that this worker was given, a minute.
        fingerprint: Of its credentials.
        horizon: No slot further ahead, in microseconds.
    """

    rate: float
    fingerprint: str
    kind: Kind
    trigger: str
    horizon: int
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """A verdict as the gate hears it.

    Args:
        what: `works`: the transport does, and nobody asked us to slow down.
        about: For a person.
        wait: What `Retry-After` says, in microseconds; 0 = nothing.
    """

    what: Literal["works", "unreadable", "slow", "refused", "failed", "unsent"]
    about: str = ""
    wait: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a slot."""

    heard: Heard
    incident: int
    probe: bool
    trigger: str
    delivered: int
    batch: str
    fingerprint: str


UNSENT: Final = Heard("unsent")


def heard(verdict: Verdict, *, policy: Policy, label: str, fingerprint: str) -> Heard:
    """Return what a verdict means for the gate."""
    match verdict:
        case Accepted() | BodyRefused() | TooLarge():
            return Heard("works")
        case Unreadable(message):
            return Heard("unreadable", message)
        case SlowDown(retry_after_seconds):
            seconds = min(retry_after_seconds or 0.0, policy.ahead / MICROSECONDS)
            return Heard("slow", wait=max(0, round(seconds * MICROSECONDS)))
        case AccessRefused(message):
            whose = f"{label or 'the authorization'} (credentials {fingerprint or 'none'})"
            return Heard("refused", f"{whose}: {message}")
        case Failed(message):
            return Heard("failed", message)
        case _ as never:
            assert_never(never)


def book(gate: GateRecord, wanted: Booking, now: int, policy: Policy) -> Slot | Closed:
    """Book the next slot, or say why not; nothing is booked then."""
    limit = _lowest_rate(gate, wanted.rate, now, policy)
    in_force = _in_force(gate, limit)
    _steady(gate, now, spacing(in_force, policy), policy)
    closed = _obstacle(gate, wanted.fingerprint, (wanted.trigger,), now)
    if closed:
        return closed
    if wanted.kind == "backfill" and gate.live > now:
        return _closed(_rate_state(gate), LIVE_FIRST, gate.live)
    at = max(now, gate.tat - tolerance(limit, in_force, policy))
    if at - now > min(wanted.horizon, policy.ahead):
        if wanted.kind == "live":
            gate.live = max(gate.live, now + policy.live)
        return _closed(_rate_state(gate), RATE, at - wanted.horizon)
    gate.tat = max(now, gate.tat) + spacing(in_force, policy)
    if wanted.kind == "live" and at > now:
        gate.live = max(gate.live, at)
    probe = wanted.probe
    if _probe_is_due(gate, wanted.fingerprint, (wanted.trigger,)):
        gate.probing = at + policy.lapse
        probe = True
    elif wanted.trigger in gate.firsts:
        gate.firsts[wanted.trigger] = at + policy.lapse
        probe = True
    return Slot(
        at_ms=at / 1000,
        now_ms=now / 1000,
        successes=gate.delivered.get(wanted.trigger, 0),
        probe=probe,
        incident=gate.incident,
        avoid=gate.avoid,
    )


def _lowest_rate(gate: GateRecord, rate: float, now: int, policy: Policy) -> float:
    """Return the lowest rate that a worker was given lately, and remember this one."""
    kept: list[str] = []
    lowest, is_fresh = rate, False
    for mark in filter(None, gate.rates.split(";")):
        text, _, seen = mark.partition("@")
        age = now - int(seen)
        if float(text) == rate:
            is_fresh = 0 <= age < policy.rates_fresh
            if not is_fresh:
                continue
        elif not 0 <= age < policy.rates:
            continue
        kept.append(mark)
        lowest = min(lowest, float(text))
    if not is_fresh:
        kept.append(f"{rate!r}@{now}")
        gate.rates = ";".join(kept)
    return lowest


def _in_force(gate: GateRecord, limit: float) -> float:
    """Return the lowered limit; not below one a minute."""
    return max(limit * gate.factor / WHOLE, min(limit, 1.0))


def _steady(gate: GateRecord, now: int, space: int, policy: Policy) -> None:
    """Outlive a clock that was set back: nothing lies further ahead than can have been booked."""
    if gate.tat > now + policy.ahead + max(space, policy.minute):
        gate.tat = now + policy.minute
    latest = now + policy.ahead + policy.lapse
    gate.closed = min(gate.closed, latest)
    gate.probing = min(gate.probing, latest)
    gate.live = min(gate.live, latest)
    gate.failed_at = min(gate.failed_at, now)
    gate.lowered_at = min(gate.lowered_at, now)
    gate.raised_at = min(gate.raised_at, now)


def _obstacle(
    gate: GateRecord, fingerprint: str, triggers: Collection[str], now: int
) -> Closed | None:
    """Return why nobody with these credentials may book for any of these triggers."""
    if gate.pause and gate.scope == "all":
        return Closed("paused", gate.pause, None, gate.about)
    if _is_refused(gate, fingerprint):
        return Closed("paused", ACCESS_REFUSED, None, gate.about)
    if gate.closed > now and _concerns(gate, triggers):
        return _closed(state_of(gate).state, gate.why, gate.closed, gate.said)
    if gate.probing > now and _probe_is_due(gate, fingerprint, triggers):
        return _closed(state_of(gate).state, PROBING, gate.probing)
    lapses = [gate.firsts.get(trigger, 0) for trigger in triggers]
    if lapses and min(lapses) > now:
        return _closed(_rate_state(gate), PROBING, min(lapses))
    return None


def _is_refused(gate: GateRecord, fingerprint: str) -> bool:
    return bool(gate.refused) and fingerprint in gate.refused.split(",")


def _concerns(gate: GateRecord, triggers: Collection[str]) -> bool:
    """Say whether the closing holds for these triggers.

    A breaker that failures of one trigger alone have opened is open for that one only. Where no
    triggers are given, all are meant that ever delivered something.
    """
    if gate.why != FAILING or "," in gate.suspects:
        return True
    return all(trigger == gate.suspects for trigger in triggers or gate.delivered)


def _probe_is_due(gate: GateRecord, fingerprint: str, triggers: Collection[str]) -> bool:
    """Say whether the next slot goes to a probe: after a closing, a resume, a pause of others."""
    if gate.first or (gate.pause and not _is_refused(gate, fingerprint)):
        return True
    return bool(gate.closed) and _concerns(gate, triggers)


def _closed(state: State, reason: str, until: int, message: str = "") -> Closed:
    return Closed(state, reason, until / 1000, message)


def _rate_state(gate: GateRecord) -> State:
    return "slowed" if gate.factor < WHOLE else "ok"


def hear(gate: GateRecord, report: Report, now: int, policy: Policy) -> GateState:
    """Change the record by what came of a slot."""
    _steady(gate, now, policy.minute, policy)
    if report.delivered:
        total = gate.delivered.get(report.trigger, 0) + report.delivered
        gate.delivered[report.trigger] = total
    is_current = report.incident == gate.incident
    is_probe = report.probe and is_current and bool(gate.probing)
    if is_probe:
        gate.probing = 0
    if report.probe and report.trigger in gate.firsts:
        gate.firsts[report.trigger] = 0
    match report.heard.what:
        case "works":
            _works(gate, report, now, policy, is_current=is_current)
        case "unreadable":
            _unreadable(gate, report, now, policy)
        case "slow":
            _slow(gate, report, now, policy, is_current=is_current)
        case "refused":
            _refused(gate, report, now, is_current=is_current)
        case "failed":
            _failed(gate, report, now, policy, is_current=is_current, is_probe=is_probe)
        case "unsent":
            pass
        case _ as never:
            assert_never(never)
    return state_of(gate)


def _works(gate: GateRecord, report: Report, now: int, policy: Policy, *, is_current: bool) -> None:
    gate.unread = 0
    _transport_works(gate)
    if report.probe:
        gate.firsts.pop(report.trigger, None)
    if not is_current:
        return
    gate.closed, gate.closes, gate.why, gate.first, gate.probing = 0, 0, "", 0, 0
    gate.good = 1
    if gate.pause and gate.scope == "access" and not _is_refused(gate, report.fingerprint):
        _unpause(gate)
    if gate.factor < WHOLE:
        _raise(gate, now, policy)


def _transport_works(gate: GateRecord) -> None:
    """Close the breaker; what a 429 has closed stays closed."""
    gate.failures, gate.suspects, gate.avoid, gate.said = 0, "", "", ""
    if gate.why == FAILING:
        gate.closed, gate.closes, gate.why = 0, 0, ""


def _raise(gate: GateRecord, now: int, policy: Policy) -> None:
    """Raise the factor slowly, short of the one that failed as long as that is remembered."""
    since = now - gate.failed_at
    if since < policy.hold:
        return
    ceiling = WHOLE
    if since < policy.memory:
        ceiling = math.floor(gate.failed * policy.short / WHOLE)
    credit = min(now - gate.raised_at, policy.credit)
    step = math.floor(credit * policy.raise_a_second / MICROSECONDS)
    if step < 1 or gate.factor >= ceiling:
        return
    gate.factor = min(ceiling, gate.factor + step)
    gate.raised_at = now
    if gate.factor >= WHOLE:
        gate.failed = 0


def _unreadable(gate: GateRecord, report: Report, now: int, policy: Policy) -> None:
    """Let one probe go first after an answer that can't be read, and pause after the next."""
    gate.unread += 1
    gate.incident += 1
    if gate.unread < policy.unreadable:
        gate.first = 1
    elif gate.scope != "all":
        put_pause(gate, UNKNOWN_ANSWER, "", now, about=report.heard.about)


def _slow(gate: GateRecord, report: Report, now: int, policy: Policy, *, is_current: bool) -> None:
    _transport_works(gate)
    if is_current:
        gate.incident += 1
        if gate.good and now - gate.lowered_at >= policy.apart:
            left = policy.lower if gate.factor == WHOLE else policy.lower_again
            gate.failed = gate.factor
            gate.factor = max(policy.least, math.floor(gate.factor * left / WHOLE))
            gate.good, gate.lowered_at = 0, now
        else:
            _close(gate, TOO_MANY_REQUESTS, now, policy)
        gate.failed_at = gate.raised_at = now
    if report.heard.wait:
        gate.incident += 0 if is_current else 1
        gate.why = TOO_MANY_REQUESTS
        gate.closed = max(gate.closed, now + report.heard.wait)


def _close(gate: GateRecord, why: str, now: int, policy: Policy) -> None:
    """Close for twice as long as before; afterwards a probe goes first."""
    doubled = policy.close * 2 ** min(gate.closes, MOST_DOUBLINGS)
    gate.closed = max(gate.closed, now + min(policy.close_most, doubled))
    gate.closes += 1
    gate.why = why


def _refused(gate: GateRecord, report: Report, now: int, *, is_current: bool) -> None:
    _transport_works(gate)
    if not is_current:
        return
    if not _is_refused(gate, report.fingerprint):
        known = gate.refused.split(",") if gate.refused else []
        gate.refused = ",".join([*known, report.fingerprint][-MOST_SUSPECTS:])
    gate.incident += 1
    if not gate.pause:
        gate.pause, gate.scope, gate.since = ACCESS_REFUSED, "access", now
    if gate.scope == "access":
        gate.about = report.heard.about


def _failed(
    gate: GateRecord,
    report: Report,
    now: int,
    policy: Policy,
    *,
    is_current: bool,
    is_probe: bool,
) -> None:
    gate.avoid, gate.said = report.batch, report.heard.about
    if not is_current and gate.why != FAILING:
        return
    names = gate.suspects.split(",") if gate.suspects else []
    if report.trigger not in names and len(names) < MOST_SUSPECTS:
        gate.suspects = ",".join([*names, report.trigger])
    if not is_current:
        return
    gate.failures += 1
    if is_probe or gate.failures >= policy.failures:
        gate.incident += 1
        _close(gate, FAILING, now, policy)


def put_pause(gate: GateRecord, reason: str, by: str, now: int, *, about: str = "") -> None:
    """Close the gate for everybody until it is resumed."""
    gate.pause, gate.scope, gate.by, gate.about, gate.since = reason, "all", by, about, now
    gate.incident += 1


def resume(gate: GateRecord, trigger: str = "") -> None:
    """Open the gate, a probe first; with a trigger, only let a probe of that one go first."""
    if trigger:
        gate.firsts[trigger] = 0
        return
    _unpause(gate)
    _transport_works(gate)
    gate.refused = ""
    gate.unread = gate.closed = gate.closes = gate.probing = 0
    gate.why = ""
    gate.first = gate.good = 1
    gate.incident += 1


def _unpause(gate: GateRecord) -> None:
    gate.pause = gate.scope = gate.by = gate.about = ""
    gate.since = 0


def state_of(gate: GateRecord) -> GateState:
    """Return how the gate stands."""
    if gate.pause:
        return GateState("paused", gate.pause, gate.about)
    if gate.why == FAILING:
        return GateState("broken", FAILING, gate.said)
    if gate.why or gate.factor < WHOLE:
        return GateState("slowed", TOO_MANY_REQUESTS)
    return GateState("ok")


def look(
    gate: GateRecord,
    *,
    rate: float,
    fingerprint: str,
    triggers: Collection[str],
    now: int,
    policy: Policy,
) -> Open | Closed:
    """Say whether it is worth beginning something; changes nothing that lasts."""
    limit = _lowest_rate(gate, rate, now, policy)
    in_force = _in_force(gate, limit)
    _steady(gate, now, spacing(in_force, policy), policy)
    closed = _obstacle(gate, fingerprint, triggers, now)
    if closed:
        return closed
    at = gate.tat - tolerance(limit, in_force, policy)
    worth_waiting = round(WORTH_WAITING_SECONDS * MICROSECONDS)
    if at - now > worth_waiting:
        return _closed(_rate_state(gate), RATE, at - worth_waiting)
    due = _probe_is_due(gate, fingerprint, triggers)
    return Open(state_of(gate).state, probe=due, avoid=gate.avoid)


def status(gate: GateRecord, *, rate: float, now: int, policy: Policy) -> GateStatus:
    """Return what `status` shows; `rate` as configured, 0 = not known."""
    state = state_of(gate)
    limit = _lowest_rate(gate, rate or math.inf, now, policy)
    _steady(gate, now, policy.minute, policy)
    closed = _obstacle(gate, "", (), now)
    return GateStatus(
        state=state.state,
        reason=state.reason,
        message=state.message,
        rate_per_minute=0.0 if limit == math.inf else _in_force(gate, limit),
        factor=gate.factor / WHOLE,
        until_ms=closed.until_ms if closed else None,
        is_open=closed is None and not gate.pause,
        by=gate.by,
        since_ms=gate.since / 1000,
    )

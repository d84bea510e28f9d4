"""The model of the gate: how it books; what it remembers is `GateRecord`.

The rules are those of `worker/adapters/redis/lua/gate_*.lua`. The simulations prove them on this
model, and the conformance tests hold both together: the same calls at the same times leave the same
record. All times are whole microseconds by one clock; factors are parts per million.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from segrelay.worker.core.gate import (
    APART,
    LIVE_FIRST,
    MICROSECONDS,
    WHOLE,
    WORTH_WAITING_SECONDS,
    Closed,
    Condition,
    GateState,
    GateStatus,
    LaneKind,
    Open,
    Policy,
    SendTime,
)
from tests.fakes.gate_record import TIMES, GateRecord
from tests.fakes.gate_spacing import spacing, tolerance

MOST_SUSPECTS: Final = 20
TOO_MANY_REQUESTS: Final = "too_many_requests"
FAILING: Final = "failing"
PROBING: Final = "probing"
RATE: Final = "rate"
ACCESS_REFUSED: Final = "access_refused"
UNKNOWN_ANSWER: Final = "unknown_answer"


def steady(gate: GateRecord, now: int) -> None:
    """Outlive a clock that was set back: all that was written down by it moves with it."""
    step = gate.seen - now
    gate.seen = now
    if step <= 0:
        return
    for name in TIMES:
        if getattr(gate, name):
            setattr(gate, name, getattr(gate, name) - step)
    gate.firsts = {name: until and until - step for name, until in gate.firsts.items()}


def is_refused(gate: GateRecord, fingerprint: str) -> bool:
    """Say whether these credentials were refused."""
    return bool(gate.refused) and fingerprint in gate.refused.split(",")


def _concerns(gate: GateRecord, trigger: str) -> bool:
    """Say whether the closing holds for a trigger; "" = for all that ever delivered something.

    A breaker holds for the triggers whose requests have failed, and for no other, unless they are
    too many to be remembered: one of which nothing failed finds out for itself.
    """
    suspects = gate.suspects.split(",")
    if gate.why != FAILING or len(suspects) >= MOST_SUSPECTS:
        return True
    return all(name in suspects for name in ([trigger] if trigger else gate.delivered))


def _probe_is_due(gate: GateRecord, fingerprint: str, trigger: str) -> bool:
    """Say whether a probe is next: after a closing, a resume, a pause of others."""
    if gate.first or (gate.pause and not is_refused(gate, fingerprint)):
        return True
    return bool(gate.closed) and _concerns(gate, trigger)


def factor_of(gate: GateRecord, now: int, policy: Policy) -> int:
    """Return what slow-downs have left of the rate by now; it rises with the time without any."""
    since = now - gate.failed_at
    if gate.factor == WHOLE or since >= policy.recovered:
        return WHOLE
    climbing = max(0, min(since, policy.memory) - policy.hold)
    ceiling = max(gate.factor, math.floor(gate.failed * policy.short / WHOLE))
    risen = math.floor(climbing * policy.raise_a_second / MICROSECONDS)
    factor = min(ceiling, gate.factor + risen)
    if since > policy.memory:
        climbing = since - policy.memory
        evenly = (WHOLE - factor) * climbing / (policy.recovered - policy.memory)
        usual = climbing * policy.raise_a_second / MICROSECONDS
        factor = min(WHOLE, factor + math.floor(max(evenly, usual)))
    return factor


def _rate_state(gate: GateRecord, now: int, policy: Policy) -> Condition:
    return "slowed" if factor_of(gate, now, policy) < WHOLE else "ok"


def state_of(gate: GateRecord, now: int, policy: Policy) -> GateState:
    """Return how the gate stands."""
    if gate.pause:
        return GateState("paused", gate.pause, gate.about)
    if gate.why == FAILING:
        return GateState("broken", FAILING, gate.said)
    if gate.why or factor_of(gate, now, policy) < WHOLE:
        return GateState("slowed", TOO_MANY_REQUESTS)
    return GateState("ok")


def transport_works(gate: GateRecord) -> None:
    """Close the breaker; what a 429 has closed stays closed."""
    gate.failures, gate.suspects, gate.avoid, gate.said = 0, "", "", ""
    if gate.why == FAILING:
        gate.closed, gate.closes, gate.why = 0, 0, ""


def put_pause(gate: GateRecord, reason: str, by: str, now: int, *, about: str = "") -> None:
    """Close the gate for everybody until it is resumed."""
    gate.pause, gate.scope, gate.by, gate.about, gate.since = reason, "all", by, about, now
    gate.incident += 1


def unpause(gate: GateRecord) -> None:
    """Forget the pause; refused credentials stay refused."""
    gate.pause = gate.scope = gate.by = gate.about = ""
    gate.since = 0


def resume(gate: GateRecord, now: int, trigger: str = "") -> None:
    """Open the gate, a probe first; with a trigger, only let a probe of that one go first."""
    steady(gate, now)
    if trigger:
        gate.firsts[trigger] = 0
        return
    unpause(gate)
    transport_works(gate)
    gate.refused = ""
    gate.unread = gate.closed = gate.closes = gate.probing = 0
    gate.why = ""
    gate.first = gate.good = 1
    gate.incident += 1


@dataclass(frozen=True, slots=True)
class Booking:
    """What somebody wants to book.

    Args:
        rate: The limit that this worker was given, a minute.
        fingerprint: Of its credentials.
        horizon: No send time further ahead, in microseconds.
    """

    rate: float
    fingerprint: str
    kind: LaneKind
    triggers: tuple[str, ...]
    horizon: int
    probe: bool = False


def book(gate: GateRecord, wanted: Booking, now: int, policy: Policy) -> SendTime | Closed:
    """Book the next send time, or say why not; nothing is booked then."""
    steady(gate, now)
    limit = _lowest_rate(gate, wanted.rate, now, policy)
    in_force = _in_force(gate, limit, now, policy)
    together, trigger = len(wanted.triggers) > 1, wanted.triggers[0]
    if together and not all(
        _is_plainly_open(gate, wanted.fingerprint, each, now, policy) for each in wanted.triggers
    ):
        return _closed(_rate_state(gate, now, policy), APART, now)
    closed = _obstacle(gate, wanted.fingerprint, trigger, now, policy)
    if closed:
        return closed
    if wanted.kind == "backfill" and gate.live > now:
        return _closed(_rate_state(gate, now, policy), LIVE_FIRST, gate.live)
    at = max(now, gate.tat - tolerance(limit, in_force, policy))
    if at - now > min(wanted.horizon, policy.ahead):
        if wanted.kind == "live":
            gate.live = max(gate.live, now + policy.live)
        return _closed(_rate_state(gate, now, policy), RATE, at - wanted.horizon)
    gate.tat = max(now, gate.tat) + spacing(in_force, policy)
    if wanted.kind == "live" and at > now:
        gate.live = max(gate.live, at)
    probe = wanted.probe
    if _probe_is_due(gate, wanted.fingerprint, trigger):
        gate.probing = at + policy.lapse
        probe = True
    elif trigger in gate.firsts:
        gate.firsts[trigger] = at + policy.lapse
        probe = True
    return SendTime(
        at_ms=at / 1000,
        now_ms=now / 1000,
        successes={each: gate.delivered.get(each, 0) for each in wanted.triggers},
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


def _in_force(gate: GateRecord, limit: float, now: int, policy: Policy) -> float:
    """Return the lowered limit; not below one a minute."""
    return max(limit * factor_of(gate, now, policy) / WHOLE, min(limit, 1.0))


def _obstacle(
    gate: GateRecord, fingerprint: str, trigger: str, now: int, policy: Policy
) -> Closed | None:
    """Return why nobody with these credentials may book for this trigger."""
    if gate.pause and gate.scope == "all":
        return Closed("paused", gate.pause, None, gate.about)
    if is_refused(gate, fingerprint):
        return Closed("paused", ACCESS_REFUSED, None, gate.about)
    if gate.closed > now and _concerns(gate, trigger):
        return _closed(state_of(gate, now, policy).state, gate.why, gate.closed, gate.said)
    if gate.probing > now and _probe_is_due(gate, fingerprint, trigger):
        return _closed(state_of(gate, now, policy).state, PROBING, gate.probing)
    lapse = gate.firsts.get(trigger, 0)
    if lapse > now:
        return _closed(_rate_state(gate, now, policy), PROBING, lapse)
    return None


def _goes_first(gate: GateRecord, fingerprint: str, trigger: str) -> bool:
    """Say whether the next request of a trigger is a probe."""
    return _probe_is_due(gate, fingerprint, trigger) or trigger in gate.firsts


def _is_plainly_open(
    gate: GateRecord, fingerprint: str, trigger: str, now: int, policy: Policy
) -> bool:
    closed = _obstacle(gate, fingerprint, trigger, now, policy)
    return closed is None and not _goes_first(gate, fingerprint, trigger)


def _closed(state: Condition, reason: str, until: int, message: str = "") -> Closed:
    return Closed(state, reason, until / 1000, message)


def look(
    gate: GateRecord, *, rate: float, fingerprint: str, trigger: str, now: int, policy: Policy
) -> Open | Closed:
    """Say whether it is worth beginning something; changes nothing that lasts."""
    steady(gate, now)
    limit = _lowest_rate(gate, rate, now, policy)
    in_force = _in_force(gate, limit, now, policy)
    closed = _obstacle(gate, fingerprint, trigger, now, policy)
    if closed:
        return closed
    at = gate.tat - tolerance(limit, in_force, policy)
    worth_waiting = round(WORTH_WAITING_SECONDS * MICROSECONDS)
    if at - now > worth_waiting:
        return _closed(_rate_state(gate, now, policy), RATE, at - worth_waiting)
    due = _goes_first(gate, fingerprint, trigger)
    return Open(state_of(gate, now, policy).state, probe=due, avoid=gate.avoid)


def look_at_each(
    gate: GateRecord,
    *,
    rate: float,
    fingerprint: str,
    triggers: Iterable[str],
    now: int,
    policy: Policy,
) -> dict[str, Open | Closed]:
    """Say of each trigger whether it is worth beginning something; changes nothing that lasts."""
    return {
        trigger: look(
            gate, rate=rate, fingerprint=fingerprint, trigger=trigger, now=now, policy=policy
        )
        for trigger in triggers
    }


def status(gate: GateRecord, *, rate: float, now: int, policy: Policy) -> GateStatus:
    """Return what `status` shows; `rate` as configured, 0 = not known."""
    steady(gate, now)
    state = state_of(gate, now, policy)
    limit = _lowest_rate(gate, rate or math.inf, now, policy)
    closed = _obstacle(gate, "", "", now, policy)
    return GateStatus(
        state=state.state,
        reason=state.reason,
        message=state.message,
        rate_per_minute=0.0 if limit == math.inf else _in_force(gate, limit, now, policy),
        factor=factor_of(gate, now, policy) / WHOLE,
        until_ms=closed.until_ms if closed else None,
        is_open=closed is None and not gate.pause,
        by=gate.by,
        since_ms=gate.since / 1000,
    )

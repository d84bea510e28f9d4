"""The model of the gate: how it hears what came of a send time; see `gate_rules`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from segrelay.worker.core.gate import SEVERAL, WHOLE, GateState, Heard, Policy
from tests.fakes.gate_record import GateRecord
from tests.fakes.gate_rules import (
    ACCESS_REFUSED,
    FAILING,
    MOST_SUSPECTS,
    TOO_MANY_REQUESTS,
    UNKNOWN_ANSWER,
    factor_of,
    is_refused,
    put_pause,
    state_of,
    steady,
    transport_works,
    unpause,
)

MOST_DOUBLINGS: Final = 10


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a send time.

    Args:
        delivered: By each trigger of the request.
    """

    heard: Heard
    incident: int
    probe: bool
    delivered: Mapping[str, int]
    batch: str
    fingerprint: str


def hear(gate: GateRecord, report: Report, now: int, policy: Policy) -> GateState:
    """Change the record by what came of a send time."""
    steady(gate, now)
    for trigger, delivered in report.delivered.items():
        if delivered:
            gate.delivered[trigger] = gate.delivered.get(trigger, 0) + delivered
            gate.went[trigger] = now
            gate.noes.pop(trigger, None)
    is_current = report.incident == gate.incident
    is_probe = report.probe and is_current and bool(gate.probing)
    if is_probe:
        gate.probing = 0
    if report.probe:
        gate.firsts.update(dict.fromkeys(gate.firsts.keys() & report.delivered.keys(), 0))
    match report.heard.what:
        case "works":
            _works(gate, report, is_current=is_current)
        case "body":
            _works(gate, report, is_current=is_current)
            for trigger in report.delivered:
                known = gate.noes.setdefault(trigger, report.batch)
                gate.noes[trigger] = known if known == report.batch else SEVERAL
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
    return state_of(gate, now, policy)


def _works(gate: GateRecord, report: Report, *, is_current: bool) -> None:
    gate.unread = 0
    transport_works(gate)
    if report.probe:
        for trigger in report.delivered:
            gate.firsts.pop(trigger, None)
    if not is_current:
        return
    gate.closed, gate.closes, gate.why, gate.first, gate.probing = 0, 0, "", 0, 0
    gate.good = 1
    if gate.pause and gate.scope == "access" and not is_refused(gate, report.fingerprint):
        unpause(gate)


def _unreadable(gate: GateRecord, report: Report, now: int, policy: Policy) -> None:
    """Let one probe go first after an answer that can't be read, and pause after the next."""
    gate.unread += 1
    gate.incident += 1
    if gate.unread < policy.unreadable:
        gate.first = 1
    elif gate.scope != "all":
        put_pause(gate, UNKNOWN_ANSWER, "", now, about=report.heard.about)


def _slow(gate: GateRecord, report: Report, now: int, policy: Policy, *, is_current: bool) -> None:
    transport_works(gate)
    if is_current:
        gate.incident += 1
        factor = factor_of(gate, now, policy)
        if (gate.good or factor > gate.factor) and now - gate.lowered_at >= policy.apart:
            left = policy.lower if factor == WHOLE else policy.lower_again
            gate.failed = factor
            gate.factor = max(policy.least, math.floor(factor * left / WHOLE))
            gate.good, gate.lowered_at = 0, now
        else:
            _close(gate, TOO_MANY_REQUESTS, now, policy)
        gate.failed_at = now
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
    transport_works(gate)
    if not is_current:
        return
    if not is_refused(gate, report.fingerprint):
        known = gate.refused.split(",") if gate.refused else []
        gate.refused = ",".join([*known, report.fingerprint][-MOST_SUSPECTS:])
    gate.incident += 1
    if not gate.pause:
        gate.pause, gate.scope, gate.since = ACCESS_REFUSED, "access", now
    if gate.scope == "access":
        gate.about = report.heard.about


def _failed(
    gate: GateRecord, report: Report, now: int, policy: Policy, *, is_current: bool, is_probe: bool
) -> None:
    gate.avoid, gate.said = report.batch, report.heard.about
    if not is_current and gate.why != FAILING:
        return
    names = gate.suspects.split(",") if gate.suspects else []
    names += [trigger for trigger in report.delivered if trigger not in names]
    gate.suspects = ",".join(names[:MOST_SUSPECTS])
    if not is_current:
        return
    gate.failures += 1
    if is_probe or gate.failures >= policy.failures:
        gate.incident += 1
        _close(gate, FAILING, now, policy)

"""The gate: its answers and its limits.

One gate stands before each host and authorization, for all workers. Who wants to send books a
send time: a time by Redis' clock that is its own, and tells afterwards what came of it. The rules
stand in `adapters/redis/lua/gate_*.lua`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from segrelay.worker.contract.settings.urls import host_of
from segrelay.worker.core.verdicts import (
    Accepted,
    AccessRefused,
    BodyRefused,
    Failed,
    SlowDown,
    TokenReplaced,
    TooLarge,
    Unreadable,
    Verdict,
)

Condition = Literal["ok", "slowed", "paused", "broken"]
LaneKind = Literal["live", "backfill"]

MICROSECONDS: Final = 1_000_000
WHOLE: Final = 1_000_000
"""A factor of 1 in parts per million; whole numbers are the same in Lua and in Python."""

LATE_SECONDS: Final = 1.0
"""The delay of a request behind its send time, in seconds, that the spacing allows for."""
USABLE_SECONDS: Final = 0.8
"""Seconds for which a send time is good; the rest of `LATE_SECONDS` is for the way to the host."""
WORTH_WAITING_SECONDS: Final = 1.0
"""The seconds to the next send time beyond which no drain is begun."""

LIVE_FIRST: Final = "live_first"
"""The reason why a backfill gets no send time: a live request waits for one."""
APART: Final = "apart"
"""The reason why several triggers get no send time together: one has to wait or go alone."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The parameters of all gates; times in microseconds, shares in parts per million.

    Args:
        minute: The length of the sliding window in which a limit is counted.
        late: The delay behind its send time with which a request may arrive.
        ahead: The furthest time ahead for a booking or a closing.
        burst_percent: The share of the limit, in percent, that may go at once.
        burst_most: The largest number of requests that may go at once.
        burst_from: The limit below which none may go at once.
        live: The time for which a live request that found no send time keeps backfill away.
        rates: The time for which the rate of another worker is remembered.
        rates_fresh: The age at which a worker's rate is written again.
        lapse: The time after its send time at which a probe without a result is given up.
        lower: The share of the full rate after a 429; `lower_again` of one lowered before;
            `least` is the end. The limit that is met first is met at full rate, and a host whose
            limit was halved is met only once.
        apart: The least time between two lowerings; sooner the gate closes instead.
        hold: The time after a 429 until the rate is raised: a whole minute has shown that it holds.
        raise_a_second: The share of the full rate by which it is raised then each second; slow,
            since a host that counts a minute is met long after its limit was passed. It is raised
            by time alone: requests that are not made prove nothing, and few are made at a low rate.
        short: The share of the rate that failed last below which a raised rate stays.
        memory: The time after the last 429 for which it stays so.
        recovered: The time after the last 429 at which the full rate is in force again, however low
            it was: from `memory` on it rises evenly to that end, or as fast as before if that is
            faster.
        close: The time of the first closing; doubled each time up to `close_most`.
        failures: The number of failures in a row that open the breaker.
        unreadable: The number of unreadable answers in a row that pause.
    """

    minute: int = 60 * MICROSECONDS
    late: int = round(LATE_SECONDS * MICROSECONDS)
    ahead: int = 900 * MICROSECONDS
    burst_percent: int = 1
    burst_most: int = 50
    burst_from: int = 100
    live: int = 2 * MICROSECONDS
    rates: int = 120 * MICROSECONDS
    rates_fresh: int = 10 * MICROSECONDS
    lapse: int = 5 * MICROSECONDS
    lower: int = 500_000
    lower_again: int = 700_000
    least: int = 20_000
    apart: int = 2 * MICROSECONDS
    hold: int = 60 * MICROSECONDS
    raise_a_second: int = 4_000
    short: int = 900_000
    memory: int = 120 * MICROSECONDS
    recovered: int = 270 * MICROSECONDS
    close: int = MICROSECONDS
    close_most: int = 30 * MICROSECONDS
    failures: int = 5
    unreadable: int = 2


POLICY: Final = Policy()


@dataclass(frozen=True, slots=True)
class SendTime:
    """The permission to send one request.

    Args:
        at_ms: The send time, by Redis' clock.
        now_ms: The time of its booking.
        successes: The number of deliveries over all workers, by trigger that it was booked for.
        probe: True if it is for one user only: others wait for what comes of it.
        incident: The number of times that the gate had been lowered, closed or resumed.
    """

    at_ms: float
    now_ms: float
    successes: Mapping[str, int]
    probe: bool
    incident: int

    def expired(self, now_ms: float) -> bool:
        """Say whether it is too late to use it: a minute could hold too many requests."""
        return now_ms - self.at_ms >= USABLE_SECONDS * 1000


@dataclass(frozen=True, slots=True)
class Open:
    """The gate is open: send times can be booked.

    Args:
        probe: True if the next send time will be a probe.
    """

    state: Condition = "ok"
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """The gate gives no send time now, with the reason and the time to come back.

    Args:
        reason: The reason as a word for machines.
        until_ms: The time to come back, by Redis' clock; None = when a person resumes.
        message: The reason for a person; "" where `reason` says all.
    """

    state: Condition
    reason: str
    until_ms: float | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class GateStatus:
    """The status of a gate, for `segrelay status` and the metrics.

    Args:
        rate_per_minute: The rate in force now, with its slow-downs; 0 where nobody has booked yet.
        factor: The share of the rate that slow-downs have left, 0 to 1.
        until_ms: The end of its closing; None = it is not closed, or until a person resumes.
        is_open: True if it is worth starting a drain.
        by: The person who paused it; "" = it paused itself.
        since_ms: The begin of its pause; 0 = it is not paused.
    """

    state: Condition
    reason: str
    message: str
    rate_per_minute: float
    factor: float
    until_ms: float | None
    is_open: bool
    by: str = ""
    since_ms: float = 0.0


SEVERAL: Final = "*"
"""The text that stands for more than one position in `TriggerAnswers.refused`."""


@dataclass(frozen=True, slots=True)
class TriggerAnswers:
    """The host's last answers to one trigger's requests, over all workers.

    Args:
        taken_seconds_ago: The time since it took something; None = never, as far as is known.
        refused: The position of the only delivery in whose requests bodies were refused since then;
            `SEVERAL`; or "" = none were.
    """

    taken_seconds_ago: float | None = None
    refused: str = ""


def gate_id(base_url: str, authorization: str) -> str:
    """Return the name of a gate: the host (with a port, if one is given) and the authorization."""
    return f"{host_of(base_url)}|{authorization}"


@dataclass(frozen=True, slots=True)
class Heard:
    """The part of a verdict that matters to the gate.

    Args:
        what: The verdict's kind: `works` = the transport works, and nobody asked us to slow down;
            `body` = so it does, but the body was refused; `unsent` = nothing is known of it.
        about: The message for a person.
        wait: The `Retry-After` of the answer, in microseconds; 0 = none.
    """

    what: Literal["works", "body", "unreadable", "slow", "refused", "failed", "unsent"]
    about: str = ""
    wait: int = 0


UNSENT: Final = Heard("unsent")


def heard(verdict: Verdict, *, policy: Policy, label: str, fingerprint: str) -> Heard:
    """Return what a verdict means for the gate."""
    match verdict:
        case BodyRefused():
            return Heard("body")
        case Accepted() | TooLarge():
            return Heard("works")
        case Unreadable(message):
            return Heard("unreadable", message)
        case SlowDown(retry_after_seconds):
            seconds = min(retry_after_seconds or 0.0, policy.ahead / MICROSECONDS)
            return Heard("slow", wait=max(0, round(seconds * MICROSECONDS)))
        case AccessRefused(message):
            whose = f"{label or 'the authorization'} (credentials {fingerprint or 'none'})"
            return Heard("refused", f"{whose}: {message}")
        case TokenReplaced():
            return UNSENT
        case Failed(message):
            return Heard("failed", message)
        case _ as never:
            assert_never(never)

"""The model of the gate: how far apart two requests must be."""

from __future__ import annotations

import math

from segrelay.worker.core.gate import Policy


def burst(limit: float, policy: Policy) -> int:
    """Return how many requests may go at once, beyond the first."""
    if limit < policy.burst_from:
        return 0
    return min(policy.burst_most, math.floor(limit * policy.burst_percent / 100))


def spacing(limit: float, policy: Policy) -> int:
    """Return the microseconds between two send times.

    60 s / (limit - burst - 1); and so far apart that a minute holds no more than the limit even
    if each send time is used up to `late` after its time.
    """
    if limit < 1:
        return math.ceil((policy.minute + policy.late) / limit)
    steady = math.floor(limit) - burst(limit, policy)
    late = math.ceil((policy.minute + policy.late) / steady)
    return late if steady == 1 else max(late, math.ceil(policy.minute / (steady - 1)))


def tolerance(limit: float, in_force: float, policy: Policy) -> int:
    """Return how far behind its regular time a send time may lie, in microseconds: the burst.

    That of a lowered rate is no longer than that of the full one: a burst on top of what went
    before would break the limit.
    """
    return min(
        burst(limit, policy) * spacing(limit, policy),
        burst(in_force, policy) * spacing(in_force, policy),
    )

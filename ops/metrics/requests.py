"""Metrics of requests and of the gate that spaces them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import Metric

from ops.metrics.families import counter, gauge, histogram
from ops.status.health.facts import Facts
from ops.status.meter import Pace
from worker.contract.processes.progress import sample_before

STATES: Final = ("ok", "slowed", "broken", "paused", "renamed", "orphaned")
_USED_MS: Final = 60_000
_OF: Final = ("destination",)


def answers(facts: Facts) -> Iterator[Metric]:
    """Yield the answers to requests, the users in them, and the times that they took."""
    destinations = facts.status["destinations"].items()
    yield counter(
        "segrelay_requests",
        "Requests by the status of the answer, or by why there was none.",
        (*_OF, "status"),
        (
            ((name, status), count)
            for name, one in destinations
            for status, count in one["requests"]["by_status"].items()
        ),
    )
    yield counter(
        "segrelay_request_users",
        "User objects in all requests.",
        _OF,
        (((name,), one["requests"]["users"]) for name, one in destinations),
    )
    yield histogram(
        "segrelay_request_seconds",
        "The time of a request until its answer.",
        _OF,
        (((name,), one["requests"]["seconds"]) for name, one in destinations),
    )
    yield counter(
        "segrelay_requests_unanswered",
        "Requests that may have taken effect without a sure answer.",
        (),
        [((), facts.status["unanswered"])],
    )


def rates(facts: Facts) -> Iterator[Metric]:
    """Yield the rate of each gate: as configured, in force, and used."""
    destinations = facts.status["destinations"].items()
    yield gauge(
        "segrelay_gate_rate_per_minute",
        "Requests that may be sent in a minute now; 0 = none was ever sent.",
        _OF,
        (((name,), one["rate"]) for name, one in destinations),
    )
    yield gauge(
        "segrelay_gate_limit_per_minute",
        "Requests that may be sent in a minute, as configured.",
        _OF,
        (((name,), rate) for name, rate in facts.limits.items()),
    )
    yield gauge(
        "segrelay_gate_used_ratio",
        "The requests of the last minute as a share of the rate in force.",
        _OF,
        (
            ((name,), _per_minute(facts, name) / one["rate"])
            for name, one in destinations
            if one["rate"]
        ),
    )


def states(facts: Facts) -> Iterator[Metric]:
    """Yield the state of each destination, and what slow-downs have left of its rate."""
    destinations = facts.status["destinations"].items()
    yield gauge(
        "segrelay_gate_factor",
        "What slow-downs have left of the rate, 0 to 1.",
        _OF,
        (((name,), one["factor"]) for name, one in destinations),
    )
    yield gauge(
        "segrelay_destination_state",
        "1 for the state in which a destination is.",
        (*_OF, "state"),
        (
            ((name, state), float(one["state"] == state))
            for name, one in destinations
            for state in STATES
        ),
    )


def _per_minute(facts: Facts, destination: str) -> float:
    if not facts.samples:
        return 0.0
    newest = facts.samples[0]
    before = sample_before(facts.samples, newest.at_ms - _USED_MS) or newest
    return Pace.between(before, newest, destination).per_minute

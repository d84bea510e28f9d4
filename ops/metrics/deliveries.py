"""Metrics of deliveries, requests, receivers, backfills and syncs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client import Metric

from segrelay.ops.dead_letters.reading import Cause
from segrelay.ops.metrics.families import OTHER, bounded, counter, gauge, histogram, number
from segrelay.ops.status.pace import Pace
from segrelay.ops.status.standing import Standing, TriggerStanding
from segrelay.ops.status.totals import KINDS
from segrelay.worker.contract.processes import sample_before

MOST_CAUSES: Final = 20
MOST_FIELDS: Final = 50
_OF_TRIGGER: Final = ("destination", "trigger")
_OF_LANE: Final = (*_OF_TRIGGER, "lane")
_OUTCOMES: Final = {
    "accepted": "Deliveries that were accepted: an event for a trigger each.",
    "delivered": "Deliveries that the destination has taken.",
    "discarded": "Deliveries that a person has taken back, or dead letters of a certain age.",
}
_RESENT: Final = "Deliveries that were sent again because an earlier request got no sure answer."
_REASONED: Final = {
    "skipped": "Deliveries that needed no request, by reason.",
    "dead": "Deliveries that became dead letters, by reason.",
}


def outcomes(standing: Standing) -> Iterator[Metric]:
    """Yield the counts of deliveries by outcome, for each trigger and kind of lane."""
    triggers = standing.triggers.items()
    lanes = [
        ((*_labels(name, one), lane), counts)
        for name, one in triggers
        for lane, counts in one.by_lane.items()
    ]
    for kind, scope in _OUTCOMES.items():
        rows = ((values, counts.of(kind)) for values, counts in lanes)
        yield counter(f"segrelay_deliveries_{kind}", scope, _OF_LANE, rows)
    for kind, scope in _REASONED.items():
        reasoned = (
            ((*values, reason), count)
            for values, counts in lanes
            for reason, count in counts.by_reason(kind).items()
        )
        yield counter(f"segrelay_deliveries_{kind}", scope, (*_OF_LANE, "reason"), reasoned)
    resent = (
        (_labels(name, one), one.counts.resent) for name, one in triggers if one.counts.resent
    )
    yield counter("segrelay_deliveries_resent", _RESENT, _OF_TRIGGER, resent)


def waiting(standing: Standing) -> Iterator[Metric]:
    """Yield the waiting deliveries by trigger and kind of lane, and the age of the oldest."""
    waits = [
        ((*_labels(name, one), lane), wait)
        for name, one in standing.triggers.items()
        for lane, wait in one.waits.items()
    ]
    yield gauge(
        "segrelay_deliveries_waiting",
        "Deliveries that wait.",
        _OF_LANE,
        ((values, wait.deliveries) for values, wait in waits),
    )
    yield gauge(
        "segrelay_oldest_waiting_seconds",
        "The time for which the oldest delivery has waited.",
        _OF_LANE,
        ((values, max(0.0, (standing.now_ms - wait.oldest_ms) / 1_000)) for values, wait in waits),
    )
    yield number(
        "segrelay_deliveries_orphaned",
        "Deliveries that wait where no worker delivers them.",
        standing.totals.orphans.total(),
    )


def times(standing: Standing) -> Iterator[Metric]:
    """Yield the times that deliveries took."""
    yield histogram(
        "segrelay_delivery_seconds",
        "The time of a delivery since its event occurred, or since it was accepted.",
        ("destination", "lane", "since"),
        (
            ((name, lane, since), found)
            for name, one in standing.destinations.items()
            for lane, by_since in one.requests.delivery_times.items()
            for since, found in by_since.items()
        ),
    )


def dead_letters(standing: Standing, causes: list[Cause]) -> Iterator[Metric]:
    """Yield the dead letters, by destination and by cause."""
    yield gauge(
        "segrelay_letters",
        "Dead letters that lie there.",
        ("destination",),
        (((name,), one.dead_letters) for name, one in standing.destinations.items()),
    )
    kept = causes[:MOST_CAUSES]
    rows = [((one.cause, one.reason, one.trigger), one.count) for one in kept]
    if rest := sum(one.count for one in causes[MOST_CAUSES:]):
        rows.append(((OTHER, OTHER, OTHER), rest))
    yield gauge(
        "segrelay_letters_by_cause",
        "Dead letters by cause, as `segrelay dlq causes` shows them; the trigger is one of them.",
        ("cause", "reason", "trigger"),
        rows,
    )


def left_out(standing: Standing) -> Iterator[Metric]:
    """Yield the number of quarantined events, and of fields that were left out by shaping."""
    yield number(
        "segrelay_quarantine_records",
        "Events that could not be placed.",
        standing.quarantined,
    )
    yield counter(
        "segrelay_dropped_fields",
        "Fields that were left out of user objects because the destination would not take them.",
        ("field",),
        (((name,), n) for name, n in bounded(standing.totals.dropped_fields, MOST_FIELDS)),
    )


def _labels(name: str, trigger: TriggerStanding) -> tuple[str, str]:
    return trigger.destination, name


STATES: Final = ("ok", "slowed", "broken", "paused", "orphaned")
_USED_MS: Final = 60_000
_OF: Final = ("destination",)


def answers(standing: Standing) -> Iterator[Metric]:
    """Yield the answers to requests, the users in them, and the times that they took."""
    destinations = standing.destinations.items()
    yield counter(
        "segrelay_requests",
        "Requests by the status of the answer, or by why there was none.",
        (*_OF, "status"),
        (
            ((name, status), count)
            for name, one in destinations
            for status, count in one.requests.by_status.items()
        ),
    )
    yield counter(
        "segrelay_request_users",
        "User objects in all requests.",
        _OF,
        (((name,), one.requests.users) for name, one in destinations),
    )
    yield histogram(
        "segrelay_request_seconds",
        "The time of a request until its answer.",
        _OF,
        (((name,), one.requests.times) for name, one in destinations),
    )
    yield counter(
        "segrelay_requests_unanswered",
        "Requests that may have taken effect without a sure answer.",
        (),
        [((), standing.counts.unanswered)],
    )


def rates(standing: Standing) -> Iterator[Metric]:
    """Yield the rate of each gate: as configured, in force, and used."""
    destinations = standing.destinations.items()
    configured = standing.settings.destinations.values()
    yield gauge(
        "segrelay_gate_rate_per_minute",
        "Requests that may be sent in a minute now; 0 = none was ever sent.",
        _OF,
        (((name,), one.rate) for name, one in destinations),
    )
    yield gauge(
        "segrelay_gate_limit_per_minute",
        "Requests that may be sent in a minute, as configured.",
        _OF,
        (((one.name,), one.rate_per_minute) for one in configured),
    )
    yield gauge(
        "segrelay_gate_used_ratio",
        "The requests of the last minute as a share of the rate in force.",
        _OF,
        (
            ((name,), _per_minute(standing, name) / one.rate)
            for name, one in destinations
            if one.rate
        ),
    )


def states(standing: Standing) -> Iterator[Metric]:
    """Yield the state of each destination, and the share of its rate after slow-downs."""
    destinations = standing.destinations.items()
    yield gauge(
        "segrelay_gate_factor",
        "What slow-downs have left of the rate, 0 to 1.",
        _OF,
        (((name,), one.factor) for name, one in destinations),
    )
    yield gauge(
        "segrelay_destination_state",
        "1 for the state in which a destination is.",
        (*_OF, "state"),
        (
            ((name, state), float(one.condition.state == state))
            for name, one in destinations
            for state in STATES
        ),
    )


def _per_minute(standing: Standing, destination: str) -> float:
    if not standing.samples:
        return 0.0
    newest = standing.samples[0]
    before = sample_before(standing.samples, newest.at_ms - _USED_MS) or newest
    return Pace.between(before, newest, destination).per_minute


MOST_JOBS: Final = 50
_ENDED: Final = frozenset({"done", "aborted"})


def receivers(standing: Standing) -> Iterator[Metric]:
    """Yield the answers of the receivers, and when they were last seen."""
    found = standing.receivers
    yield counter(
        "segrelay_receiver_requests",
        "Requests that receivers answered, by status.",
        ("status",),
        (((str(status),), count) for status, count in sorted(found.ever.items())),
    )
    moments = {
        "seen": ("When a receiver was last seen.", found.seen_ms),
        "event": ("When a receiver last stored events.", found.event_ms),
    }
    for name, (scope, at_ms) in moments.items():
        rows = [((), at_ms / 1_000)] if at_ms else []
        yield gauge(f"segrelay_receiver_{name}_timestamp_seconds", scope, (), rows)
    yield number(
        "segrelay_receiver_lag_seconds",
        "How late the last two timers of a receiver were at least: a starved one is late.",
        max((one.lag_ms for one in found.running.values()), default=0) / 1_000,
    )
    yield counter(
        "segrelay_receiver_too_large",
        "Requests that receivers refused for their size: their events are lost.",
        (),
        [((), standing.too_large_requests)],
    )


def jobs(standing: Standing) -> Iterator[Metric]:
    """Yield the number of backfills in each state, and the counts of those that have not ended."""
    found = standing.jobs
    states = Counter(one.condition.state for one in found.values())
    yield gauge(
        "segrelay_jobs",
        "Backfills by state.",
        ("state",),
        (((state,), count) for state, count in sorted(states.items())),
    )
    going = [name for name, one in found.items() if one.condition.state not in _ENDED][:MOST_JOBS]
    yield gauge(
        "segrelay_job_deliveries",
        "Deliveries of a backfill that has not ended, by what became of them.",
        ("job", "kind"),
        (((name, kind), found[name].counts.of(kind)) for name in going for kind in KINDS),
    )


def syncs(standing: Standing) -> Iterator[Metric]:
    """Yield the failures of each sync, and the end of its last run."""
    runs = standing.syncs
    yield gauge(
        "segrelay_sync_failures",
        "Steps of a sync in a row that came to nothing.",
        ("sync",),
        (((name,), run.failures) for name, run in runs.items()),
    )
    yield gauge(
        "segrelay_sync_waits_for_confirm",
        "1 while a sync waits for a person.",
        ("sync",),
        (((name,), float(bool(run.asks))) for name, run in runs.items()),
    )
    yield gauge(
        "segrelay_sync_ended_timestamp_seconds",
        "When the last run of a sync ended.",
        ("sync",),
        (((name,), run.ended_ms / 1_000) for name, run in runs.items() if run.ended_ms),
    )

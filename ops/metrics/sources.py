"""Metrics of the receivers, the backfills and the syncs, which bring events in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client import Metric

from ops.metrics.families import counter, gauge, number
from ops.status.health.facts import Facts
from ops.status.totals import KINDS
from producer.sync.run import Phase

MOST_JOBS: Final = 50
_ENDED: Final = frozenset({"done", "aborted"})


def receivers(facts: Facts) -> Iterator[Metric]:
    """Yield the answers of the receivers, and when they were last seen."""
    found = facts.receivers
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
    for name, (meaning, at_ms) in moments.items():
        rows = [((), at_ms / 1_000)] if at_ms else []
        yield gauge(f"segrelay_receiver_{name}_timestamp_seconds", meaning, (), rows)
    yield number(
        "segrelay_receiver_lag_seconds",
        "How late the timers of a receiver are: a starved one is late.",
        max(found.lag_ms.values(), default=0) / 1_000,
    )
    yield counter(
        "segrelay_receiver_too_large",
        "Requests that receivers refused for their size: their events are lost.",
        (),
        [((), facts.status["too_large_requests"])],
    )


def jobs(facts: Facts) -> Iterator[Metric]:
    """Yield the number of backfills in each state, and the counts of those that have not ended."""
    found = facts.status["jobs"]
    states = Counter(one["state"] for one in found.values())
    yield gauge(
        "segrelay_jobs",
        "Backfills by state.",
        ("state",),
        (((state,), count) for state, count in sorted(states.items())),
    )
    going = [name for name, one in found.items() if one["state"] not in _ENDED][:MOST_JOBS]
    yield gauge(
        "segrelay_job_deliveries",
        "Deliveries of a backfill that has not ended, by what became of them.",
        ("job", "kind"),
        (((name, kind), found[name][kind]) for name in going for kind in KINDS),
    )


def syncs(facts: Facts) -> Iterator[Metric]:
    """Yield the failures of each sync, and the end of its last run."""
    runs = {name: one.run for name, one in facts.syncs.items()}
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
        (((name,), float(run.phase is Phase.CONFIRM)) for name, run in runs.items()),
    )
    yield gauge(
        "segrelay_sync_ended_timestamp_seconds",
        "When the last run of a sync ended.",
        ("sync",),
        (((name,), run.ended_ms / 1_000) for name, run in runs.items() if run.ended_ms),
    )

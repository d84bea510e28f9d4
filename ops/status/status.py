"""The JSON document of `segrelay status`, made from the standing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from segrelay.ops.status.problems import HealthProblem
from segrelay.ops.status.standing import (
    Condition,
    DestinationStanding,
    JobStanding,
    Standing,
    TriggerStanding,
    read_standing,
)
from segrelay.ops.status.totals import largest_first
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings


def read_status(client: Redis, settings: Settings) -> dict[str, Any]:
    """Read the standing and return its document, without problems."""
    return document_of(read_standing(client, settings))


def judged_document(standing: Standing, problems: Sequence[HealthProblem]) -> dict[str, Any]:
    """Return the document of `segrelay status`, with the problems."""
    return {**document_of(standing), "problems": [one.document() for one in problems]}


def document_of(standing: Standing) -> dict[str, Any]:
    """Return the document of `segrelay status` without problems."""
    totals = standing.totals
    return {
        **asdict(standing.counts),
        "triggers": {
            name: _trigger(one, totals.orphans[name]) for name, one in standing.triggers.items()
        },
        "jobs": {name: _job(one) for name, one in standing.jobs.items()},
        "destinations": {name: _destination(one) for name, one in standing.destinations.items()},
        "lanes": {
            name: {
                "waiting": one.deliveries,
                "oldest_seconds": max(0, totals.now_ms - one.oldest_ms) / 1_000,
            }
            for name, one in sorted(totals.lanes.items())
        },
        "oldest_waiting_seconds": totals.oldest_waiting_seconds,
        "in_doubt": totals.intents_in_doubt,
        "orphaned": totals.orphans.total(),
        "orphans": largest_first(totals.orphans),
        "refused_destinations": dict(standing.refused_destinations),
        "quarantined": standing.quarantined,
        "too_large_requests": standing.too_large_requests,
        "dropped_fields": largest_first(totals.dropped_fields),
        "responses": {"waiting": standing.responses.waiting, "lost": standing.responses.lost},
        "watches": {name: asdict(one) for name, one in standing.watches.items()},
        "retention": standing.retention.document(),
        "template_files": {name: asdict(one) for name, one in standing.template_files.items()},
        "processes": [
            {name: getattr(one, name) for name in _OF_PROCESS}
            | {"current": standing.is_current(one)}
            for one in standing.processes
        ],
    }


def _condition(one: Condition) -> dict[str, Any]:
    document: dict[str, Any] = {"state": one.state, "reason": one.reason}
    if one.state == "paused":
        at = datetime.fromtimestamp(one.since_ms / 1_000, UTC) if one.since_ms else None
        document |= {"since": at.isoformat(timespec="seconds") if at else "", "by": one.by}
    return document


def _destination(one: DestinationStanding) -> dict[str, Any]:
    requests = one.requests
    return {
        **_condition(one.condition),
        "message": one.condition.message,
        "rate": one.rate,
        "factor": one.factor,
        "since_ms": one.condition.since_ms or 0,
        "requests": {
            "by_status": dict(requests.by_status),
            "users": requests.users,
            "seconds": requests.times.document(),
        },
        "delivery_seconds": {
            kind: {since: times.document() for since, times in by_since.items()}
            for kind, by_since in requests.delivery_times.items()
        },
        "letters": one.dead_letters,
    }


def _trigger(one: TriggerStanding, orphaned: int) -> dict[str, Any]:
    document = {
        **asdict(one.counts),
        "by_lane": {lane: asdict(counts) for lane, counts in one.by_lane.items()},
        "waits": {lane: asdict(wait) for lane, wait in one.waits.items()},
        "orphaned": orphaned,
        "destination": one.destination,
        "oldest_live_ms": one.oldest_live_ms,
        **_condition(one.condition),
        "versions": list(one.versions),
        "engine_use": {"events": one.events, "asked": one.asked, "by_reason": dict(one.engine_use)},
        "refused": one.refused,
    }
    if one.condition.state in {"refused", "waits"}:
        document["lasting"] = one.condition.is_lasting
    return document


def _job(one: JobStanding) -> dict[str, Any]:
    read = {"rows": one.rows, "expected_rows": one.expected_rows}
    return {**asdict(one.counts), **_condition(one.condition), **read}


_OF_PROCESS: Final = (
    "host", "pid", "kind", "version", "config", "doubted", "clock_ahead_seconds", "refused",
    "refused_messages",
)  # fmt: skip

"""The document of `segrelay status --json`: its keys are an interface."""

from pathlib import Path
from typing import Any

import pytest

from segrelay.ops.state.partitions import Counts, LaneWait, Totals
from segrelay.ops.status.command import judged_document
from segrelay.ops.status.standing import (
    Condition,
    DestinationStanding,
    DifferingFile,
    JobStanding,
    Standing,
    TriggerStanding,
)
from segrelay.worker.contract.processes import WORKER, Process
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import DESTINATION, JOB, TRIGGER, Pause

NOW = 1_800_000_000_000
SIX = {"accepted", "delivered", "skipped", "dead", "discarded", "waiting"}
FOUR = {"requests", "unanswered", "resent", "shared_identity"}
REASONS = {"skipped_by_reason", "dead_by_reason"}
PAUSE = Pause("maintenance", "ann", "2027-01-15T07:00:00+00:00")
STANDING = Standing(
    Settings.empty(Path("/nowhere")),
    NOW,
    Counts(accepted=5, delivered=2, dead=1, waiting=2, requests=3, dead_by_reason={"refused": 1}),
    Totals(now_ms=NOW, lanes={"live": LaneWait(2, NOW - 7_000)}),
    {
        "insider": DestinationStanding(
            Condition.of_pause(DESTINATION, PAUSE),
            25_000.0,
            1.0,
            Totals().requests_of("insider"),
            1,
        )
    },
    {
        "vip": TriggerStanding(
            Condition(TRIGGER, "refused", "400", is_lasting=True),
            "insider",
            by_lane={"live": Counts()},
            waits={"live": LaneWait(2, NOW)},
            versions=["v2"],
        )
    },
    {"load": JobStanding(Condition(JOB, "reading"), rows=1, expected_rows=9)},
    processes=[Process("one", 7, WORKER, "aaa")],
    template_files={"enter.jsonnet": DifferingFile({"aa": ["one:7"], "": ["two:8"]}, NOW)},
)
DOCUMENT = judged_document(STANDING)
COUNTS = SIX | FOUR | REASONS
KEYS = {
    "": COUNTS | {
        "triggers", "jobs", "destinations", "lanes", "oldest_waiting_seconds", "in_doubt",
        "orphaned", "orphans", "refused_destinations", "quarantined",
        "too_large_requests", "dropped_fields", "responses", "retention", "watches",
        "template_files", "processes", "problems",
    },
    "problems 0": {"name", "severity", "subject", "since", "message", "command"},
    "template_files enter.jsonnet": {"workers_by_digest", "since_ms"},
    "destinations insider": {
        "state", "reason", "message", "rate", "factor", "since_ms", "since", "by", "requests",
        "delivery_seconds", "letters",
    },
    "destinations insider requests": {"by_status", "users", "seconds"},
    "destinations insider requests seconds": {"count", "sum_seconds", "buckets"},
    "destinations insider delivery_seconds": {"live", "backfill"},
    "destinations insider delivery_seconds live": {"occurred", "accepted"},
    "triggers vip": COUNTS | {
        "by_lane", "waits", "orphaned", "destination", "oldest_live_ms", "state", "reason",
        "lasting", "versions", "refused",
    },
    "triggers vip by_lane live": COUNTS,
    "jobs load": COUNTS | {"state", "reason", "rows", "expected_rows", "at", "watch", "refused"},
    "processes 0": {
        "host", "pid", "kind", "version", "config", "current", "doubted", "clock_ahead_seconds",
        "refused", "refused_messages",
    },
}  # fmt: skip


@pytest.mark.parametrize("path", KEYS)
def test_each_part_of_the_document_has_its_keys(path: str) -> None:
    found: Any = DOCUMENT
    for name in path.split():
        found = found[int(name) if name.isdigit() else name]

    assert set(found) == KEYS[path]


def test_times_and_conditions_are_told_as_programs_read_them() -> None:
    assert DOCUMENT["lanes"] == {"live": {"waiting": 2, "oldest_seconds": 7.0}}
    assert DOCUMENT["oldest_waiting_seconds"] == 7.0
    assert DOCUMENT["responses"] == {"waiting": 0, "lost": 0}
    assert DOCUMENT["triggers"]["vip"]["waits"] == {"live": {"deliveries": 2, "oldest_ms": NOW}}
    assert DOCUMENT["processes"][0]["current"] is True  # nothing was started later
    told = {"state": "paused", "reason": "maintenance", "by": "ann"}
    assert told.items() <= DOCUMENT["destinations"]["insider"].items()
    assert DOCUMENT["destinations"]["insider"]["since"] == "2027-01-15T07:00:00+00:00"

"""The document of `segrelay status --json`: its keys are an interface."""

from pathlib import Path

from segrelay.ops.status.command import judged_document
from segrelay.ops.status.standing import (
    Condition,
    DestinationStanding,
    DifferingFile,
    JobStanding,
    Standing,
    TriggerStanding,
)
from segrelay.ops.status.totals import Counts, LaneWait, Totals
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


def test_the_whole() -> None:
    assert set(DOCUMENT) == SIX | FOUR | REASONS | {
        "triggers", "jobs", "destinations", "lanes", "oldest_waiting_seconds", "in_doubt",
        "orphaned", "orphans", "refused_destinations", "quarantined",
        "too_large_requests", "dropped_fields", "responses", "retention", "watches",
        "template_files", "processes", "problems",
    }  # fmt: skip
    assert DOCUMENT["lanes"] == {"live": {"waiting": 2, "oldest_seconds": 7.0}}
    assert DOCUMENT["oldest_waiting_seconds"] == 7.0
    assert DOCUMENT["responses"] == {"waiting": 0, "lost": 0}
    assert set(DOCUMENT["template_files"]["enter.jsonnet"]) == {"workers_by_digest", "since_ms"}
    problem = DOCUMENT["problems"][0]
    assert set(problem) == {"name", "severity", "subject", "since", "message", "command"}


def test_a_destination() -> None:
    found = DOCUMENT["destinations"]["insider"]

    assert set(found) == {
        "state", "reason", "message", "rate", "factor", "since_ms", "since", "by", "requests",
        "delivery_seconds", "letters",
    }  # fmt: skip
    assert (found["state"], found["reason"], found["by"]) == ("paused", "maintenance", "ann")
    assert found["since"] == "2027-01-15T07:00:00+00:00"
    assert set(found["requests"]) == {"by_status", "users", "seconds"}
    assert set(found["requests"]["seconds"]) == {"count", "sum_seconds", "buckets"}
    assert set(found["delivery_seconds"]) == {"live", "backfill"}
    assert set(found["delivery_seconds"]["live"]) == {"occurred", "accepted"}


def test_a_trigger() -> None:
    found = DOCUMENT["triggers"]["vip"]

    assert set(found) == SIX | FOUR | REASONS | {
        "by_lane", "waits", "orphaned", "destination", "oldest_live_ms", "state", "reason",
        "lasting", "versions", "engine_use", "refused",
    }  # fmt: skip
    assert set(found["by_lane"]["live"]) == SIX | FOUR | REASONS
    assert found["waits"] == {"live": {"deliveries": 2, "oldest_ms": NOW}}
    assert set(found["engine_use"]) == {"events", "asked", "by_reason"}


def test_a_job_and_a_process() -> None:
    (process,) = DOCUMENT["processes"]

    assert set(DOCUMENT["jobs"]["load"]) == SIX | FOUR | REASONS | {
        "state", "reason", "rows", "expected_rows",
    }  # fmt: skip
    assert set(process) == {
        "host", "pid", "kind", "version", "config", "current", "doubted", "clock_ahead_seconds",
        "refused", "refused_messages",
    }  # fmt: skip
    assert process["current"] is True  # nothing was started later

"""Each problem, from the facts that make it one."""

from dataclasses import replace
from typing import Any

import pytest

from segrelay.ops.status.health import problems_of
from segrelay.ops.status.problems import (
    ATTENTION,
    ILL,
    Facts,
    HealthProblem,
    RedisFacts,
    SyncFacts,
    line_of,
)
from segrelay.producer.sync.run import Phase, Run
from segrelay.worker.contract.processes import Sample
from segrelay.worker.contract.receivers import Receivers
from segrelay.worker.contract.redis.acts import BEGUN, BROKEN_OFF, Act
from segrelay.worker.contract.redis.instance import Loss

NOW = 1_800_000_000_000
WORKER = {
    "host": "one",
    "kind": "worker",
    "pid": 7,
    "version": "1.0",
    "config": "aaa",
    "current": True,
    "doubted": {},
    "refused": {},
    "clock_ahead_seconds": 0,
    "refused_messages": 0,
}
OTHER = WORKER | {"pid": 8}
TRIGGER: dict[str, Any] = {
    "state": "ok",
    "reason": "",
    "destination": "insider",
    "oldest_live_ms": None,
    "refused": "",
    "other_versions": {},
    "version": "v2",
}
DIFFERS = {"workers_by_digest": {"aa": ["one:7"], "": ["two:8"]}, "since_ms": NOW - 9_000}
DESTINATION = {"state": "ok", "reason": "", "factor": 1.0, "since_ms": 0}


def status(**changes: Any) -> dict[str, Any]:
    return {
        "destinations": {"insider": DESTINATION},
        "triggers": {"vip": TRIGGER},
        "jobs": {},
        "processes": [WORKER],
        "orphaned": 0,
        "orphans": {},
        "orphans_mended_by": {},
        "former_names": {},
        "partitions": {"count": 16, "first": 0},
        "renamed_people": {},
        "quarantined": 0,
        "template_files": {},
    } | changes


def facts(more: dict[str, Any] | None = None, **changes: Any) -> Facts:
    return Facts(**({"status": status(**(more or {})), "now_ms": NOW} | changes))


def destination(**changes: Any) -> dict[str, Any]:
    return {"destinations": {"insider": DESTINATION | changes}}


def trigger(**changes: Any) -> dict[str, Any]:
    return {"triggers": {"vip": TRIGGER | changes}}


def renamed(**changes: Any) -> dict[str, Any]:
    found = {"renamed": 0, "refused": 0, "refused_ms": 0, "waiting": 0, "problem": ""}
    return {"renamed_people": {"insider": found | changes}}


def job(state: str) -> dict[str, Any]:
    return {"jobs": {"load": {"state": state, "reason": "why", "waiting": 5}}}


def worker(**changes: Any) -> dict[str, Any]:
    return {"processes": [WORKER, WORKER | {"host": "two"} | changes]}


def sync(**changes: Any) -> dict[str, Any]:
    return {"syncs": {"vip": SyncFacts(Run(**changes), 900.0)}}


def samples(*counts: dict[str, int], every_ms: int = 60_000, quarantined: int = 0) -> list[Sample]:
    return [
        Sample(NOW - number * every_ms, {"insider": one}, 0 if number else quarantined)
        for number, one in enumerate(counts)
    ]


def receiver(**changes: Any) -> dict[str, Any]:
    return {"has_webhook": True, "receivers": Receivers(**({"seen_ms": NOW} | changes))}


def refused(status: int, *, ago_ms: int, **changes: Any) -> dict[str, Any]:
    """Return receivers that refused nine requests, and took some."""
    known = {"answers": {status: 9, 200: 4}, "taken_ms": NOW, "last_ms": {status: NOW - ago_ms}}
    return receiver(**(known | changes))


def changing(**changes: Any) -> dict[str, Any]:
    return {"partitions": {"count": 16, "first": 0, "changing_to": 64} | changes}


def redis(**changes: Any) -> dict[str, Any]:
    return {"redis": RedisFacts(**changes)}


def answers(*each: tuple[int, int]) -> list[Sample]:
    """Return samples of ten seconds each of requests and the sum of their times, newest first."""
    counts = [{"requests": requests, "asked|ms": took_ms} for requests, took_ms in each]
    return samples(*counts, every_ms=10_000)


USUAL = [(100, 20_000), (0, 0)]
"""A hundred requests before, of 0.2 s each."""
ALL_DEAD = samples({"dead|vip|refused": 30, "settled": 30}, {"settled": 0})
FEW_DEAD = samples(
    {"dead|vip|refused": 12, "delivered|vip": 900}, {"dead|vip|refused": 2, "delivered|vip": 0}
)
STILL = samples(*[{"waits": 9, "settled": 4, "waits|load": 5, "job|load": 3}] * 4)
RENAME = Act(
    "audience rename", "ann", "vip", arguments={"to": "club"}, outcome=BEGUN, at_ms=NOW - 61_000
)
WELL = facts()

CASES = [
    (facts(**sync(failures=1, refused=True)), "sync_fails", ILL),
    (facts({"processes": []}), "no_worker", ILL),
    (facts(worker(current=False)), "worker_configuration", ILL),
    (facts(worker(version="0.9")), "worker_version", ATTENTION),
    (facts(worker(clock_ahead_seconds=-8)), "clock_differs", ATTENTION),
    (facts(worker(clock_ahead_seconds=90)), "clock_differs", ILL),
    (facts({"processes": [WORKER | {"clock_ahead_seconds": 600}, OTHER]}), "clock_differs", ILL),
    (facts({"processes": [OTHER, WORKER | {"clock_ahead_seconds": -600}]}), "clock_differs", ILL),
    (facts(**redis(clock_ahead_seconds=90.0)), "clock_differs", ILL),
    (facts(destination(state="paused")), "destination_paused", ILL),
    (facts(destination(state="broken")), "destination_broken", ILL),
    (facts(destination(factor=0.4)), "destination_slowed", ATTENTION),
    (facts(trigger(state="paused")), "trigger_paused", ILL),
    (facts(trigger(state="stopped")), "trigger_stopped", ILL),
    (facts(trigger(state="refused")), "trigger_refused", ATTENTION),
    (facts(trigger(state="refused", lasting=True)), "trigger_refused", ILL),
    (facts(trigger(state="waits", oldest_live_ms=NOW - 61_000)), "trigger_waits", ILL),
    (facts(trigger(refused="line 1")), "template_refused", ILL),
    (facts({"template_files": {"enter.jsonnet": DIFFERS}}), "template_differs", ILL),
    (facts(worker(refused_messages=3)), "messages_refused", ATTENTION),
    (facts(worker(doubted={"enter.jsonnet": 1})), "template_doubted", ATTENTION),
    (facts({"orphaned": 3, "orphans": {"old": 3}}), "orphaned", ILL),
    (facts({"former_names": {"new": "old"}}), "destination_renamed", ILL),
    (facts(trigger(oldest_live_ms=NOW - 61_000)), "live_late", ILL),
    (facts(samples=STILL), "live_stands_still", ILL),
    (facts(job("delivering"), samples=STILL), "job_stands_still", ILL),
    (facts(samples=ALL_DEAD), "dead_letters_grow", ILL),
    (facts(samples=FEW_DEAD), "dead_letters_grow", ATTENTION),
    (facts(samples=answers((104, 40_000), *[USUAL[0]] * 3, *USUAL)), "answers_slow", ILL),
    (facts(samples=answers((104, 23_200), *[USUAL[0]] * 3, *USUAL)), "answers_slow", ATTENTION),
    (facts(samples=answers((3, 9_000), (0, 0), (0, 0), (0, 0))), "answers_slow", ILL),
    (facts(stopped_renamings={"0a": NOW - 130_000}), "rename_stopped", ATTENTION),
    (facts(unfinished=[RENAME]), "rename_unfinished", ATTENTION),
    (facts(unfinished=[replace(RENAME, outcome=BROKEN_OFF)]), "rename_unfinished", ATTENTION),
    (facts(job("aborted")), "abort_unfinished", ATTENTION),
    (facts(renamed(refused=1, refused_ms=NOW - 1_000)), "not_renamed", ATTENTION),
    (facts(renamed(waiting=1, problem="401")), "renaming_waits", ATTENTION),
    (facts(workers_wanted=2), "too_few_workers", ATTENTION),
    (facts(changing()), "partitions_change", ILL),
    (facts(companions={"flower": NOW - 31_000}), "flower_down", ATTENTION),
    (facts(companions={"metrics": NOW - 31_000}), "metrics_down", ATTENTION),
    (facts({"quarantined": 2}, samples=samples({}, {})), "quarantine_grows", ATTENTION),
    (facts({"quarantined": 20}, samples=samples({}, {})), "quarantine_grows", ILL),
    (facts(job("failed")), "job_failed", ILL),
    (facts(job("interrupted")), "job_interrupted", ILL),
    (facts(job("paused")), "job_paused", ATTENTION),
    (facts(job("at its canary")), "job_at_canary", ATTENTION),
    (facts(**sync(phase=Phase.CONFIRM, doubt="200 are gone")), "sync_waits", ILL),
    (facts(**sync(failures=1, problem="401")), "sync_fails", ATTENTION),
    (facts(**sync(failures=3, problem="401")), "sync_fails", ILL),
    (facts(**sync(next_ms=NOW - 600_000)), "sync_overdue", ILL),
    (facts(**sync(phase=Phase.SCAN, begun_ms=NOW - 3_700_000)), "sync_overdue", ILL),
    (facts(**redis(full="Redis is full")), "redis_full", ILL),
    (facts(**redis(used=75, most=100)), "redis_nearly_full", ATTENTION),
    (facts(**redis(weak=["appendonly is off: …"])), "redis_not_durable", ILL),
    (facts(**redis(weak=["appendfsync is everysec: …"])), "redis_not_durable", ATTENTION),
    (facts(**redis(failing=["the last snapshot failed"])), "redis_disk_fails", ILL),
    (facts(**redis(losses=[Loss(NOW - 9_000, NOW)])), "redis_emptied", ILL),
    (facts(**receiver(seen_ms=NOW - 31_000)), "receiver_down", ILL),
    (facts(**receiver(lag_ms={"one:7": 1_500})), "receiver_starved", ILL),
    (facts(**receiver(answers={401: 9}, since_taken={401: 9})), "receiver_unauthorized", ILL),
    (
        facts(**receiver(answers={401: 9, 200: 4}, since_taken={401: 2}, taken_ms=NOW - 60_000)),
        "receiver_unauthorized",
        ATTENTION,
    ),
    (facts(**receiver(answers={413: 1})), "receiver_too_large", ILL),
    (facts(**refused(413, ago_ms=3_600_000, since_taken={413: 1})), "receiver_too_large", ILL),
    (facts(**refused(413, ago_ms=19_000)), "receiver_too_large", ILL),
    (facts(**refused(413, ago_ms=20_000)), "receiver_too_large", ATTENTION),
    (facts(**refused(401, ago_ms=19_000)), "receiver_unauthorized", ATTENTION),
    (facts(**refused(503, ago_ms=90_000, since_taken={503: 1})), "receiver_unavailable", ATTENTION),
    (facts(**receiver(answers={503: 5}, since_taken={503: 5})), "receiver_unavailable", ILL),
    (facts(**receiver(event_ms=NOW - 9_000), events_within_seconds=5.0), "no_events", ILL),
]


def test_a_message_that_was_a_sentence_goes_on_with_the_command() -> None:
    (found,) = problems_of(facts(**redis(full="Redis is full. Raise its maxmemory.")))

    assert "maxmemory; segrelay" in line_of(found.document())


def test_a_node_that_came_back_empty_is_named() -> None:
    (found,) = problems_of(facts(**redis(losses=[Loss(NOW - 9_000, NOW, "10.0.0.7:6379")])))

    assert found.message.startswith("The node 10.0.0.7:6379 of Redis came back empty: ")


@pytest.mark.parametrize(("found", "name", "severity"), CASES)
def test_each_kind_of_trouble_is_one_problem_with_its_severity(
    found: Facts, name: str, severity: str
) -> None:
    names = [(one.name, one.severity) for one in problems_of(found)]

    assert (name, severity) in names
    assert all(one.message and one.command for one in problems_of(found))


QUIET = [
    WELL,
    facts(trigger(oldest_live_ms=NOW - 59_000)),
    facts({"template_files": {"enter.jsonnet": DIFFERS | {"since_ms": NOW - 5_000}}}),
    facts(trigger(other_versions={"two:8": ["v1", "v2"]})),
    facts(samples=samples(*[{"waits": 9, "settled": n} for n in range(9, 0, -1)])),
    facts(samples=samples(*[{"waits": 0, "settled": 4}] * 9)),
    facts(samples=samples(*[{"dead|vip|refused": 30}] * 2)),
    facts(samples=[]),
    facts({"quarantined": 0}, samples=samples({}, {})),
    facts(samples=answers((104, 20_800), *[USUAL[0]] * 3, *USUAL)),
    facts(samples=answers((102, 40_000), *[USUAL[0]] * 3, *USUAL)),
    facts(samples=answers((2, 40_000), (0, 0))),
    facts(samples=answers((30, 30_000), (0, 0), (0, 0), (0, 0))),
    facts(samples=answers((104, 40_000), *[USUAL[0]] * 3, *USUAL), now_ms=NOW + 61_000),
    facts(worker(), workers_wanted=2),
    facts(companions={"flower": NOW - 29_000, "metrics": NOW}),
    facts(**sync(next_ms=NOW - 30_000)),
    facts(**sync(phase=Phase.SCAN, begun_ms=NOW - 60_000)),
    facts(**redis(used=60, most=100)),
    facts(receivers=Receivers(seen_ms=1)),
    facts(has_webhook=True),
    facts(**receiver(answers={200: 5}, taken_ms=1, event_ms=1)),
    facts(**refused(401, ago_ms=20_000)),
    facts(**refused(503, ago_ms=20_000)),
    facts(**refused(413, ago_ms=1_000, is_limit_raised=True)),
    facts(job("delivering")),
    facts(job("done")),
]


@pytest.mark.parametrize("found", QUIET)
def test_what_is_as_usual_is_no_problem(found: Facts) -> None:
    assert problems_of(found) == []


def test_live_deliveries_of_a_paused_destination_are_late_for_one_reason_only() -> None:
    late = trigger(oldest_live_ms=NOW - 61_000) | destination(state="paused")

    assert [one.name for one in problems_of(facts(late))] == ["destination_paused"]


def test_the_ill_problems_stand_first() -> None:
    both = facts(destination(factor=0.4), **redis(full="Redis is full"))

    assert [one.severity for one in problems_of(both)] == [ILL, ATTENTION]


def test_a_line_names_the_problem_its_begin_and_the_command() -> None:
    problem = HealthProblem("no_worker", ILL, "", "none", "segrelay up", 1_800_000_000_000)

    told = line_of(problem.document())

    assert told == "ill: no_worker since 2027-01-15T08:00:00Z: none; segrelay up"


def test_a_lot_of_old_deliveries_do_not_hide_that_all_new_ones_die() -> None:
    before = {"delivered|vip": 1_000_000, "settled": 1_000_000}
    now = before | {"dead|vip|refused": 30, "settled": 1_000_030}

    (found,) = problems_of(facts(samples=samples(now, before)))

    assert (found.name, found.severity) == ("dead_letters_grow", ILL)
    assert "30 of its last 30" in found.message

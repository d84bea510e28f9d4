"""Runs of `make chaos`, from a short to a large one: nothing is wrong after."""

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import orjson
import pytest

from tests.nightly import amount
from tests.warm import WarmProcess
from tools.chaos.plan import Plan
from tools.chaos.run import ChaosRun

SHORT = Plan(
    events=amount(120, nightly=4_000),
    people=amount(30, nightly=1_000),
    regulars=amount(10, nightly=200),
    states=amount(0.1, nightly=0.3),
    partitions=4,
    concurrency=1,
    worker_kills=amount(2, nightly=4),
    redis_kills=1,
    receiver_kills=1,
    master_stopped_seconds=6,
    exported=amount(20, nightly=2_000),
    rewrites=amount(0, nightly=3),
    minutes=6,
    **dict.fromkeys(
        ("reader_kills", "stops", "orderly_stops", "restarts", "limit_changes"),
        amount(0, nightly=1),
    ),
)
"""By day a worker, the receiver and Redis are killed; other tests break all else that `make chaos`
breaks."""
LARGE = {
    "--redis": "cluster",
    "--events": 1_000_000,
    "--people": 300_000,
    "--worker-kills": 430,
    "--receiver-kills": 25,
    "--reader-kills": 25,
    "--redis-kills": 20,
    "--minutes": 240,
}
EXERCISED = {
    "accepted_from_sync",
    "moves_found_by_sync",
    "exports_rewritten_while_read",
    "user_objects_with_several_events",
}
"""What a report counts that has to happen in a large run."""
EARLY, LATE = slice(1, 4), slice(7, 10)
"""The tenths of a run that are compared; in the first one, processes and people are still new."""
SLOWEST = 0.75
"""Of the early deliveries a second; kills and stops of masters hit some tenths more than others."""
LARGEST = {"worker_mb": 1.25, "receiver_mb": 1.25, "redis_mb": 1.6}
"""Of the early memory. Processes may differ by the batch that they hold. Redis keeps a record of
each person: 0.96 of them are known in the end, 0.74 after the fourth tenth, so that it grows by
1.3, and by whatever else waits; by what it kept of each event, it would grow by 2.5."""


@pytest.mark.parametrize("redis", amount(["single"], nightly=["single", "sentinel", "cluster"]))
def test_a_short_chaos_breaks_no_promise(tmp_path, redis):
    plan, told = replace(SHORT, redis=redis), []

    verdict = ChaosRun(plan, tmp_path, told.append, WarmProcess).verdict()

    document = verdict.document()
    assert document["violations"] == [], "\n".join(told)
    assert document["accepted"] == document["delivered"] + document["skipped"] > SHORT.events
    assert verdict.disruptions == Counter(plan.disruptions(random.Random(1)))


@pytest.mark.nightly
def test_a_large_chaos_breaks_no_promise_and_stays_as_fast_and_as_small():
    words = [str(word) for pair in LARGE.items() for word in pair]

    done = subprocess.run(
        [sys.executable, "-m", "tools.chaos", "--json", *words],
        capture_output=True,
        timeout=60 * LARGE["--minutes"] + 60,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()[-4_000:]
    report = orjson.loads(done.stdout)
    assert report["violations"] == []
    assert report["accepted"] == report["delivered"] + report["skipped"] > LARGE["--events"]
    assert (report["lost"], report["wrong_memberships"]) == (0, 0)
    assert {name for name in EXERCISED if not report[name]} == set()
    broken = report["disruptions"]
    assert broken["kill_worker"] + broken["kill_child"] == LARGE["--worker-kills"]
    kills = (broken["kill_receiver"], broken["kill_reader"], broken["kill_redis"])
    assert kills == (25, 25, 20)
    assert worse(report["course"]) == []


def worse(course):
    """Return what is worse in the late tenths of a run than in the early ones."""
    early, late = course[EARLY], course[LATE]
    assert len(early) == len(late) == 3

    def speed(samples):
        settled = samples[-1]["settled"] - samples[0]["settled"]
        return settled / (samples[-1]["seconds"] - samples[0]["seconds"])

    found = ["per_second"] if speed(late) < SLOWEST * speed(early) else []
    return found + [
        name
        for name, most in LARGEST.items()
        if max(each[name] for each in late) > most * max(each[name] for each in early)
    ]


@pytest.mark.parametrize(
    ("name", "grows_by"), [("seconds", 60), ("worker_mb", 9), ("receiver_mb", 9), ("redis_mb", 40)]
)
def test_a_course_that_worsens_is_found(name, grows_by):
    flat = {"worker_mb": 120, "receiver_mb": 110, "redis_mb": 90}
    course = [{"seconds": 300 * n, "settled": 90_000 * n, **flat} for n in range(11)]
    assert worse(course) == []

    for number, sample in enumerate(course):
        sample[name] += grows_by * number ** (1 + (name == "seconds"))

    assert worse(course) == ["per_second" if name == "seconds" else name]

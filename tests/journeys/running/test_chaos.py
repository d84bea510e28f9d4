"""Runs of `make chaos`, from a short to a large one: nothing is wrong after."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import orjson
import pytest

from tests.warm import WarmProcess
from tools.chaos.plan import Disruption, Plan
from tools.chaos.run import ChaosRun

SMALL = {
    "--events": 4_000,
    "--people": 1_000,
    "--regulars": 200,
    "--states": 0.3,
    "--worker-kills": 4,
    "--redis-kills": 1,
    "--receiver-kills": 1,
    "--reader-kills": 1,
    "--stops": 1,
    "--orderly-stops": 1,
    "--restarts": 1,
    "--limit-changes": 1,
    "--exported": 2_000,
    "--rewrites": 3,
    "--minutes": 3,
}


SHORT = Plan(
    events=120,
    people=30,
    regulars=10,
    states=0.1,
    partitions=4,
    concurrency=1,
    worker_kills=2,
    redis_kills=1,
    receiver_kills=1,
    reader_kills=0,
    stops=0,
    master_stopped_seconds=6,
    orderly_stops=0,
    restarts=0,
    limit_changes=0,
    exported=20,
    rewrites=0,
    minutes=6,
)
"""A worker, the receiver and Redis are killed; all else that `make chaos` breaks is broken by other
tests, or nightly."""
BROKEN = Counter(
    (
        Disruption.KILL_WORKER,
        Disruption.KILL_CHILD,
        Disruption.KILL_RECEIVER,
        Disruption.KILL_REDIS,
        Disruption.STOP_MASTER,
    )
)
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
EARLY, LATE = slice(1, 4), slice(7, 10)
"""The tenths of a run that are compared; in the first one, processes and people are still new."""
SLOWEST = 0.75
"""Of the early deliveries a second; kills and stops of masters hit some tenths more than others."""
LARGEST = {"worker_mb": 1.25, "receiver_mb": 1.25, "redis_mb": 1.6}
"""Of the early memory. Processes may differ by the batch that they hold. Redis keeps a record of
each person: 0.96 of them are known in the end, 0.74 after the fourth tenth, so that it grows by
1.3, and by whatever else waits; by what it kept of each event, it would grow by 2.5."""


def short_chaos(tmp_path, redis, broken):
    """Play the short plan with the masters of a kind of Redis: no promise is broken."""
    told = []

    verdict = ChaosRun(replace(SHORT, redis=redis), tmp_path, told.append, WarmProcess).verdict()

    document = verdict.document()
    assert document["violations"] == [], "\n".join(told)
    assert document["accepted"] == document["delivered"] + document["skipped"] > SHORT.events
    assert verdict.disruptions == broken


def test_a_short_chaos_breaks_no_promise(tmp_path):
    short_chaos(tmp_path, "single", BROKEN - Counter([Disruption.STOP_MASTER]))


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("redis", "more"), [("sentinel", Counter()), ("cluster", Counter([Disruption.MOVE_SLOT]))]
)
def test_a_short_chaos_of_masters_breaks_no_promise(tmp_path, redis, more):
    short_chaos(tmp_path, redis, BROKEN + more)


def run(options: dict[str, object]) -> dict[str, object]:
    """Return the report of a run that has kept all promises."""
    words = [str(word) for pair in options.items() for word in pair]

    done = subprocess.run(
        [sys.executable, "-m", "tools.chaos", "--json", *words],
        capture_output=True,
        timeout=60 * options["--minutes"] + 60,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()[-4_000:]
    report = orjson.loads(done.stdout)
    assert report["violations"] == []
    assert report["accepted"] == report["delivered"] + report["skipped"] > 4_000
    assert (report["lost"], report["wrong_memberships"]) == (0, 0)
    return report


@pytest.mark.nightly
def test_a_small_chaos_breaks_no_promise():
    report = run(SMALL)

    assert report["disruptions"]["kill_redis"] == 1
    assert report["accepted_from_sync"] > 200
    assert report["moves_found_by_sync"] > 0
    assert report["exports_rewritten_while_read"] > 0
    assert report["user_objects_with_several_events"] > 0


@pytest.mark.nightly
def test_a_large_chaos_breaks_no_promise_and_stays_as_fast_and_as_small():
    report = run(LARGE)

    done = report["disruptions"]
    assert done["kill_worker"] + done["kill_child"] == LARGE["--worker-kills"]
    kills = (done["kill_receiver"], done["kill_reader"], done["kill_redis"])
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

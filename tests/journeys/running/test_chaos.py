"""Small runs of `make chaos`: everything is broken once or twice, and nothing is wrong after."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import orjson
import pytest

from ops.chaos.plan import Disruption, Plan
from ops.chaos.run import ChaosRun
from tests.warm import WarmProcess

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
    "--aborted-rows": 6_000,
    "--exported": 2_000,
    "--rewrites": 3,
    "--minutes": 3,
}


SHORT = Plan(
    events=400,
    people=100,
    regulars=20,
    states=0.1,
    worker_kills=2,
    redis_kills=1,
    receiver_kills=1,
    reader_kills=0,
    stops=0,
    master_stopped_seconds=6,
    orderly_stops=0,
    restarts=0,
    limit_changes=0,
    aborts=0,
    exported=50,
    rewrites=0,
    minutes=6,
)
"""A master is killed and stopped, and a slot moved; all else that `make chaos` breaks is broken by
other tests, or nightly."""
BROKEN = Counter(
    (
        Disruption.KILL_WORKER,
        Disruption.KILL_CHILD,
        Disruption.KILL_RECEIVER,
        Disruption.KILL_REDIS,
        Disruption.STOP_MASTER,
    )
)


@pytest.mark.nightly
def test_a_short_chaos_behind_sentinels_breaks_no_promise(tmp_path):
    verdict = short_run(tmp_path, redis="sentinel")

    assert verdict.disruptions == BROKEN


@pytest.mark.nightly
def test_a_short_chaos_in_a_cluster_breaks_no_promise(tmp_path):
    verdict = short_run(tmp_path, redis="cluster")

    assert verdict.disruptions == BROKEN + Counter([Disruption.MOVE_SLOT])


def short_run(folder, *, redis):
    told = []
    verdict = ChaosRun(replace(SHORT, redis=redis), folder, told.append, WarmProcess).verdict()
    document = verdict.document()
    assert document["violations"] == [], "\n".join(told)
    assert document["accepted"] == document["delivered"] + document["skipped"] > SHORT.events
    return verdict


def run(options: dict[str, object]) -> dict[str, object]:
    """Return the report of a run that has kept all promises."""
    words = [str(word) for pair in options.items() for word in pair]

    done = subprocess.run(
        [sys.executable, "-m", "ops.chaos", "--json", *words],
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
def test_a_small_chaos_behind_sentinels_breaks_no_promise():
    report = run({**SMALL, "--redis": "sentinel", "--minutes": 6})

    done = report["disruptions"]
    assert (done["kill_redis"], done["stop_master"]) == (1, 1)


@pytest.mark.nightly
def test_a_small_chaos_in_a_cluster_breaks_no_promise():
    report = run({**SMALL, "--redis": "cluster", "--minutes": 6})

    done = report["disruptions"]
    assert (done["kill_redis"], done["stop_master"], done["move_slot"]) == (1, 1, 1)


@pytest.mark.nightly
def test_a_small_chaos_breaks_no_promise():
    report = run(SMALL)

    assert report["disruptions"]["kill_redis"] == 1
    assert report["accepted_from_sync"] > 200
    assert report["moves_found_by_sync"] > 0
    assert report["jobs_aborted"] == 2
    assert report["audiences_renamed"] == 1
    assert report["moved_by_the_renaming"] > 0
    assert report["exports_rewritten_while_read"] > 0
    assert report["user_objects_with_several_events"] > 0

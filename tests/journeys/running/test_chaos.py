"""A small run of `make chaos`: everything is broken once or twice, and nothing is wrong after."""

import subprocess
import sys

import orjson
import pytest

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

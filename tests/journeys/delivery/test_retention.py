"""Real workers drop old letters after they were announced, whoever is killed meanwhile."""

import random
import time

from segrelay.ops.demo.rig import kill_group
from segrelay.ops.state.retention import store_for
from segrelay.ops.status.health import read_problems
from segrelay.worker.contract.redis.acts import read_acts
from tests.journeys.play import SHORT, Rig, invent, lines, send, start_worker, status_of
from tests.nightly import amount
from tests.waiting import until

EVENTS = amount(200, nightly=10_000)
KILLS = amount(2, nightly=30)
KEPT = """
[retention]
dead_letters = "6s"
quarantine = "6s"
warning = "3s"
"""


def problems_of(rig):
    return {one.name for one in read_problems(rig.client, rig.settings)}


def balanced(status):
    kinds = ("delivered", "skipped", "dead", "discarded", "waiting")
    return status["accepted"] == sum(status[kind] for kind in kinds)


def test_letters_are_announced_and_dropped_by_workers_that_are_killed(tmp_path):
    _, sent = invent(EVENTS, EVENTS // 6, seed=5)
    rng = random.Random(5)
    with Rig(
        tmp_path,
        sandbox_settings={"poison": "1@", "poison_status": 200},
        delivery_lines=SHORT,
        more=KEPT,
    ) as rig:
        worker = start_worker(rig, "--concurrency=2")
        send(rig, lines(sent))
        until(lambda: "letters_expire" in problems_of(rig), 30)
        rig.wait_until_empty(60)
        found = status_of(rig)
        died = found["dead"] + found["discarded"]
        assert died > EVENTS / 40

        for _ in range(KILLS):
            time.sleep(rng.uniform(0, 1.5))
            kill_group(worker)
            assert balanced(status_of(rig))
            worker = start_worker(rig, "--concurrency=2")
        until(lambda: not status_of(rig)["dead"], 60)

        found = status_of(rig)
        assert balanced(found)
        assert found["discarded"] == died
        assert found["retention"]["dead_letters"]["dropped"] == died
        until(lambda: "letters_expire" not in problems_of(rig), 10)
        until(lambda: [act for act in read_acts(rig.client) if act.what == "retention"], 30)
        assert b"dropped_ms" in store_for(rig.client).peek()

"""Failures on the whole system: who is to blame, who dies of it, and who must not notice."""

import math
import time
from dataclasses import replace
from statistics import median

import pytest

from segrelay.worker.contract.words import BACKFILL, LIVE
from tests.journeys.play import (
    PATH_OF_EXITS,
    SHORT,
    Rig,
    invent,
    lines,
    publish,
    send,
    start_worker,
    status_of,
    watched,
)
from tests.nightly import amount
from tests.waiting import allowed, until

ONE_PARTITION = "partitions = 1"
LATENCY = {"latency_seconds": 0.02}
BACKLOG = amount(1_500, nightly=20_000)
SINGLE = amount(6, nightly=30)


def entrances(number, seed):
    """Return entrances of so many persons, one of each."""
    happened, _ = invent(4 * number, 2 * number, seed=seed)
    first_of = {event.email: event for event in happened if not event.is_exit}
    return list(first_of.values())[:number]


def requests_of(rig):
    return rig.sandbox.get("summary")["requests"]["total"]


@pytest.mark.parametrize(
    "latency_seconds",
    [pytest.param(0.0, id="fast"), pytest.param(0.6, id="slow", marks=pytest.mark.nightly)],
)
def test_a_400_costs_two_requests_a_halving(tmp_path, latency_seconds):
    entered = entrances(1_000, seed=20)
    culprit = entered[617].email
    faults = {"poison": f'{culprit}"', "latency_seconds": latency_seconds}
    with Rig(tmp_path, redis_lines=ONE_PARTITION, sandbox_settings=faults) as rig, watched(rig):
        send(rig, lines(entered))
        start_worker(rig, "--concurrency=2")
        rig.wait_until_empty(60)

        status = status_of(rig)
        assert (status["delivered"], status["dead_by_reason"]) == (999, {"refused": 1})
        assert culprit not in rig.memberships()
        assert requests_of(rig) <= 1 + 2 * math.ceil(math.log2(1_000))


def test_who_alone_makes_the_destination_fail_dies_alone(tmp_path):
    entered = entrances(1_600, seed=21)
    before, others = entered[:1_000], entered[1_000:]
    culprit = before[400].email
    faults = {"poison": f'{culprit}"', "poison_status": 500, **LATENCY}
    with Rig(
        tmp_path, redis_lines=ONE_PARTITION, delivery_lines=SHORT, sandbox_settings=faults
    ) as rig:
        send(rig, lines(before))
        start_worker(rig, "--concurrency=2")
        for at in range(0, len(others), 10):
            publish(rig, lines(others[at : at + 10]))
            time.sleep(0.5)
            if status_of(rig)["dead"]:
                break
        rig.wait_until_empty(30)

        status = status_of(rig)
        assert status["dead_by_reason"] == {"failed": 1}
        assert len(rig.memberships()) == status["delivered"] == status["accepted"] - 1
        assert status["destinations"]["insider"]["state"] == "ok"


def waiting_of(rig, trigger):
    return status_of(rig)["triggers"][trigger]["waiting"]


@pytest.mark.parametrize("lane", [LIVE, pytest.param(BACKFILL, marks=pytest.mark.nightly)])
def test_single_live_events_pass_a_failing_path_with_a_backlog_in_three_seconds(tmp_path, lane):
    entered = entrances(BACKLOG + SINGLE, seed=26)
    leaving = [replace(event, is_exit=True) for event in entered[SINGLE:]]
    failing = LATENCY | {"failures": [{"status": 500, "path": PATH_OF_EXITS}]}
    with Rig(tmp_path, exit_events=False, sandbox_settings=failing) as rig, watched(rig):
        for at in range(0, len(leaving), 5_000):
            send(rig, lines(leaving[at : at + 5_000]), "--lane", lane)
        start_worker(rig, "--concurrency=2")
        until(lambda: requests_of(rig) >= 5, 30)
        waited = []
        for event in entered[:SINGLE]:
            publish(rig, lines([event]))
            begun = time.monotonic()
            until(lambda: waiting_of(rig, "enter") == 0, 60)
            waited.append(time.monotonic() - begun)
            time.sleep(1)

        status = status_of(rig)
        assert median(waited) <= allowed(1.0), sorted(waited)
        assert max(waited) <= allowed(5.0), sorted(waited)[-5:]
        assert (status["dead"], status["triggers"]["exit"]["waiting"]) == (0, len(leaving))
        assert status["triggers"]["exit"]["state"] == "waits"
        assert "500" in status["triggers"]["exit"]["reason"]

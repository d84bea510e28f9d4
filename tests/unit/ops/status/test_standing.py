"""What stops deliveries, as `send --wait`, `resume` and `why` say it."""

from dataclasses import replace
from pathlib import Path

import pytest

from segrelay.ops.state.partitions import Totals
from segrelay.ops.status.standing import (
    Condition,
    DestinationStanding,
    JobStanding,
    RedisStanding,
    Standing,
    TriggerStanding,
)
from segrelay.worker.contract.processes import WORKER, Process
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import DESTINATION, JOB, TRIGGER, Pause

SETTINGS = Settings.empty(Path("/nowhere"))
ONE = Process("one", 7, WORKER, SETTINGS.fingerprint)
BY_ANN = Pause("maintenance", "ann")
OK = Condition(DESTINATION)
GOING = Standing(SETTINGS, 0, processes=[ONE])


def standing(destination=OK, *, failing=(), trigger="ok", job="delivering"):
    requests = Totals().requests_of("insider")
    return replace(
        GOING,
        destinations={
            "insider": DestinationStanding(destination, 60.0, 1.0, requests, 0, frozenset(failing))
        },
        triggers={
            "vip": TriggerStanding(Condition(TRIGGER, trigger, "why"), "insider"),
            "other": TriggerStanding(Condition(TRIGGER), "insider"),
        },
        jobs={"load": JobStanding(Condition(JOB, job, "why"))},
    )


BROKEN = Condition(DESTINATION, "broken", "failing", "503")


@pytest.mark.parametrize(
    ("found", "stops"),
    [
        (standing(), []),
        (
            standing(Condition.of_pause(DESTINATION, BY_ANN)),
            ["destination insider is paused: maintenance (by ann)"],
        ),
        (standing(BROKEN), ["destination insider is broken: 503"]),
        (standing(BROKEN, failing=["vip"]), ["destination insider is broken: 503"]),
        (standing(BROKEN, failing=["other"]), []),
        (standing(Condition(DESTINATION, "slowed", "too_many_requests")), []),
        (standing(trigger="stopped"), ["trigger vip is stopped: why"]),
        (standing(trigger="waits"), ["trigger vip waits: why"]),
        (standing(job="at its canary"), ["job load is at its canary: why"]),
        (standing(job="reading"), []),
    ],
)
def test_only_what_stops_these_deliveries_is_told(found, stops):
    assert list(found.stops(["vip"], "load")) == stops


def test_what_stops_others_is_not_told():
    assert not list(standing(trigger="paused", job="paused").stops(["other"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"processes": []}, "no worker has been seen"),
        ({"processes": [replace(ONE, config="older")]}, "another configuration (one:7)"),
        ({"processes": [ONE, replace(ONE, config="older")]}, ""),
        ({"redis": RedisStanding(takes_writes=False)}, "refuses writes"),
    ],
)
def test_what_stops_everything_is_told(changes, words):
    found = replace(GOING, **changes)

    assert words in found.idle
    assert bool(words) == bool(found.idle)
    assert list(found.stops([])) == ([found.idle] if words else [])

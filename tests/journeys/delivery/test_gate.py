"""The gate on the whole system: two workers of two processes each, Redis, the sandbox."""

import time

import pytest

from tests.journeys.play import status_of
from tests.nightly import amount
from tests.waiting import allowed, patient, until
from tests.warm import WarmProcess
from tools.bench.gate import LimitPhase, LiveEvents, crowd_rig, figures, publish_crowd
from tools.bench.rigs import start_workers

WINDOW_SECONDS = amount(8, nightly=60)
"""What the sandbox takes for a minute."""
LIMIT = 600
BURST = 6
LATE = 3
"""Requests that arrive 0.3 s after the gate let them pass, when the machine is busy."""


def crowd(folder, **options):
    """Return a rig with a crowd, whose processes start quickly."""
    rig = crowd_rig(folder, **options)
    rig.launch = WarmProcess
    return rig


def limit_of_a_window():
    """Return the sandbox's limit: that of a minute, of which the gate may send 1 % at once."""
    if WINDOW_SECONDS == 60:
        return LIMIT
    return LIMIT * WINDOW_SECONDS // 60 + BURST + round(patient(LATE))


def requests_of(rig):
    return rig.sandbox.get("summary")["requests"]["total"]


@pytest.mark.nightly  # by day on a clock that the test moves: `conformance/gate`
def test_a_saturated_limit_is_used_is_not_broken_and_lets_live_events_through(tmp_path):
    limit_of_window = limit_of_a_window()
    strict = {
        "limit_per_minute": limit_of_window,
        "window_seconds": WINDOW_SECONDS,
        "latency_seconds": 0.05,
    }
    with crowd(tmp_path, rate=f"{LIMIT}/min", sandbox_settings=strict) as rig:
        publish_crowd(rig, range(2 * LIMIT))
        start_workers(rig)
        until(lambda: requests_of(rig), 20)
        begun = time.time()
        live = LiveEvents(rig, 1.0)
        time.sleep(2)
        live.start()
        time.sleep(WINDOW_SECONDS + 2)
        live.stop()

        usual = LIMIT * WINDOW_SECONDS // 60
        full = LimitPhase(usual, begun, time.time(), WINDOW_SECONDS)
        found = figures(rig.sandbox.get("requests", last=0)["timeline"], full)
        limit = rig.sandbox.get("summary")["limit"]
        assert status_of(rig)["waiting"] > 0
        assert limit["limited"] == 0
        assert limit["highest_received"] <= limit_of_window
        assert patient(found["share_of_limit_in_last_minute"]) >= 0.95
        assert live.shown()["median_seconds"] < allowed(1.5)
        assert live.shown()["longest_seconds"] < allowed(4)

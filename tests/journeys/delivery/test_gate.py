"""The gate on the whole system: two workers of two processes each, Redis, the sandbox."""

import time

import pytest

from tests.journeys.play import Rig, invent, lines, nothing_is_wrong, send, status_of, watched
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
        full = LimitPhase("full", usual, begun, time.time(), WINDOW_SECONDS)
        found = figures(rig.sandbox.get("requests", last=0)["timeline"], full)
        limit = rig.sandbox.get("summary")["limit"]
        assert status_of(rig)["waiting"] > 0
        assert limit["limited"] == 0
        assert limit["highest_received"] <= limit_of_window
        assert patient(found["share_of_limit_in_last_minute"]) >= 0.95
        assert live.shown()["median_seconds"] < allowed(1.5)
        assert live.shown()["longest_seconds"] < allowed(4)


def test_a_halved_limit_is_learnt_at_once(tmp_path):
    before_seconds, halved_seconds = 4, amount(16, nightly=30)
    strict = {"limit_per_minute": 130, "window_seconds": 2.0}
    with crowd(tmp_path, rate="2400/min", sandbox_settings=strict) as rig:
        publish_crowd(rig, range(amount(1_500, nightly=3_000)))
        start_workers(rig)
        until(lambda: requests_of(rig), 20)
        time.sleep(before_seconds)
        before = rig.sandbox.get("summary")["limit"]["limited"]
        rig.sandbox.settings(limit_per_minute=50)
        begun = time.time()
        time.sleep(halved_seconds)

        halved = LimitPhase("halved", 50, begun, time.time())
        found = figures(rig.sandbox.get("requests", last=0)["timeline"], halved)
        assert before == 0
        # All of them may be in the second in which it was halved, which `figures` leaves out.
        assert rig.sandbox.get("summary")["limit"]["limited"] > 0
        assert found["limited_after_10_seconds"] <= max(patient(LATE), 0.01 * found["taken"])
        assert (status_of(rig)["dead"], state_of(rig)[0]) == (0, "slowed")


@pytest.mark.parametrize("status", [401, pytest.param(403, marks=pytest.mark.nightly)])
def test_refused_credentials_pause_and_a_resume_sends_one_person_first(tmp_path, status):
    happened, sent = invent(600, 300, seed=30)
    with Rig(tmp_path, sandbox_settings={"credentials_status": status}) as rig, watched(rig):
        start_workers(rig)
        send(rig, lines(sent[:300]))
        until(lambda: state_of(rig) == ("paused", "access_refused"), 20)
        send(rig, lines(sent[300:]))
        time.sleep(1)
        tried = requests_of(rig)
        time.sleep(2)
        assert requests_of(rig) == tried <= 16

        refused = rig.command("resume", "insider")
        assert (refused.returncode, b"paused again" in refused.stdout) == (1, True)
        until(lambda: requests_of(rig) > tried, 20)
        until(lambda: state_of(rig) == ("paused", "access_refused"), 20)
        time.sleep(3)
        assert requests_of(rig) == tried + 1
        assert last_requests(rig, 1)[0]["users"] <= 1
        waiting = status_of(rig)
        assert (waiting["delivered"], waiting["dead"]) == (0, 0)

        rig.sandbox.settings(credentials_status=0)
        taken = rig.command("resume", "insider")
        assert (taken.returncode, b"was taken" in taken.stdout) == (0, True)
        rig.wait_until_empty(60)
        assert rig.sandbox.get("requests", last=5_000)["last"][tried + 1]["users"] == 1
        nothing_is_wrong(rig, happened)


def state_of(rig):
    found = status_of(rig)["destinations"]["insider"]
    return found["state"], found["reason"]


def last_requests(rig, number):
    return rig.sandbox.get("requests", last=number)["last"]

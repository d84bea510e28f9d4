"""Outages on the whole system: they bury nobody, and all is delivered after them."""

import time

import pytest

from tests.journeys.delivery.test_retries import LATENCY, entrances, requests_of
from tests.journeys.play import (
    SHORT,
    Rig,
    invent,
    lines,
    nothing_is_wrong,
    publish,
    send,
    start_worker,
    status_of,
    watched,
)
from tests.nightly import amount
from tests.waiting import until

OUTAGE_SECONDS = amount(4, nightly=10)
OUTAGE_EVENTS = amount(1_000, nightly=5_000)


@pytest.mark.nightly
def test_a_403_of_something_in_between_buries_nobody_and_all_arrive_after_it(tmp_path):
    entered = entrances(360, seed=27)
    with Rig(tmp_path, delivery_lines=SHORT, sandbox_settings=LATENCY) as rig, watched(rig):
        start_worker(rig, "--concurrency=2")
        send(rig, lines(entered[:30]))
        rig.wait_until_empty(30)
        rig.sandbox.settings(failures=[{"status": 403, "html": True}])
        for at in range(30, 150, 3):
            publish(rig, lines(entered[at : at + 3]))
            time.sleep(0.2)
        status = status_of(rig)
        assert (status["dead"], status["waiting"]) == (0, 120)
        assert status["triggers"]["enter"]["state"] == "refused"
        assert "403" in status["triggers"]["enter"]["reason"]

        rig.sandbox.settings(failures=[])
        for at in range(150, 360, 30):
            publish(rig, lines(entered[at : at + 30]))
        rig.wait_until_empty(60)

        assert status_of(rig)["delivered"] == 360
        nothing_is_wrong(rig, entered)


def test_an_outage_of_everything_ends_by_itself_and_buries_nobody(tmp_path):
    happened, sent = invent(OUTAGE_EVENTS, OUTAGE_EVENTS * 3 // 10, seed=25)
    with Rig(tmp_path, delivery_lines=SHORT, sandbox_settings=LATENCY) as rig, watched(rig):
        start_worker(rig, "--concurrency=2")
        send(rig, lines(sent[: OUTAGE_EVENTS // 5]))
        until(lambda: status_of(rig)["delivered"], 30)
        rig.sandbox.settings(failures=[{"status": 503}])
        send(rig, lines(sent[OUTAGE_EVENTS // 5 : OUTAGE_EVENTS * 3 // 5]))
        until(lambda: status_of(rig)["destinations"]["insider"]["state"] == "broken", 20)
        time.sleep(OUTAGE_SECONDS)
        rig.sandbox.settings(failures=[], lost_requests=1.0)
        send(rig, lines(sent[OUTAGE_EVENTS * 3 // 5 :]))
        before = requests_of(rig)
        time.sleep(OUTAGE_SECONDS)
        during = requests_of(rig) - before
        status = status_of(rig)

        rig.sandbox.settings(lost_requests=0.0)
        delivered = status["delivered"]
        until(lambda: status_of(rig)["delivered"] > delivered, 30)
        rig.wait_until_empty(90)

        assert (status["dead"], status["destinations"]["insider"]["state"]) == (0, "broken")
        assert during <= 10
        nothing_is_wrong(rig, happened)

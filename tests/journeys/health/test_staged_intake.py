"""Failures of what comes in, staged one after the other."""

import httpx
import pytest

from segrelay.worker.contract import keys
from tests.journeys.health.staging import receive, staged
from tests.journeys.judging import WELL_SECONDS, entrances, glimpsed
from tests.journeys.play import start_worker, stop_worker
from tests.rig import kill_group
from tests.waiting import until


@pytest.mark.nightly  # by day `unit/ops/status`, and test_staged_deliveries.py
def test_failures_of_what_comes_in_are_named(tmp_path, receiver):
    with staged(tmp_path, receiver.table(max_bytes=65536)) as stage:
        rig = stage.rig
        worker = start_worker(rig)
        process = receive(stage, receiver)
        until(lambda: rig.client.exists("{segrelay}:progress"), 30)
        stage.cured()

        assert receiver.post(entrances(12, 100, audience="vpi")) == 200
        stage.named("quarantine_grows", "12 events", "segrelay quarantine list")
        stage.run("quarantine", "discard", "--all", "--yes")
        stage.cured()

        for _ in range(5):
            receiver.post(entrances(1), "the-old-secret")
        stage.named("receiver_unauthorized", "changed at one end only", "segrelay serve --check")
        ready = f"{receiver.url}/readyz"
        assert httpx.get(ready).status_code == 200
        until(lambda: httpx.get(ready).json()["problems"] == ["receiver_unauthorized"], 20)
        assert receiver.post(entrances(1)) == 200
        until(lambda: "receiver_unauthorized" not in glimpsed(rig, attention=True), WELL_SECONDS)
        stage.cured()

        kill_group(process)
        stage.named("receiver_down", "no receiver", "segrelay serve")
        process = receive(stage, receiver)
        stage.cured()

        assert receiver.post(entrances(1_000)) == 413
        stage.named("receiver_too_large", "max_bytes", "segrelay serve --check")
        # A sender that is killed before it kept that would leave the message to be sent again.
        until(lambda: b'told_ms":0' not in rig.client.hget(keys.ALERTS, "open"))
        kill_group(process)
        stop_worker(worker)
        source = rig.settings.source
        source.write_text(source.read_text().replace("max_bytes = 65536", "max_bytes = 2000000"))
        start_worker(rig)
        receiver.start(rig)
        assert receiver.post(entrances(1_000)) == 200
        stage.cured()

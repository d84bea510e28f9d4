"""Failures of syncs, staged one after the other."""

import pytest

from tests.journeys.health.staging import MEMBERS, SYNC, staged
from tests.journeys.play import start_worker
from tests.waiting import until


@pytest.mark.nightly  # by day `unit/ops/status`, and test_staged_deliveries.py
def test_failures_of_syncs_are_named(tmp_path):
    with staged(tmp_path, SYNC) as stage:
        rig = stage.rig
        rig.sandbox.post("lytics/profiles", MEMBERS)
        rig.sandbox.settings(lytics={"error_shares": {"401": 1.0}})
        start_worker(rig)
        stage.named("sync_fails", "401", "segrelay sync status vips")
        rig.sandbox.settings(lytics={"error_shares": {}})
        stage.run("sync", "run", "vips")
        stage.cured()
        until(lambda: len(rig.memberships()) == 300, 60)

        moves = [{"uid": f"u{n}", "audience": "vip", "change": "exit"} for n in range(200)]
        rig.sandbox.post("lytics/moves", moves)
        stage.named("sync_waits", "waits for a person", "segrelay sync confirm vips")
        stage.run("sync", "confirm", "vips")
        stage.cured()

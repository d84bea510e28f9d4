"""Buckets of Google Cloud and of Azure that are watched while a worker is killed."""

import gzip
import signal

import pytest

from segrelay.ops.demo.rig import kill_group
from tests.clouds import cloud
from tests.journeys.intake.test_watch import (
    HIGH_WATER,
    OPTIONS,
    PEOPLE,
    job_of,
    looked,
    people,
    rows,
)
from tests.journeys.play import Rig, start_worker
from tests.waiting import until


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_an_object_is_taken_read_and_after_a_kill_read_on(scheme, monkeypatch, tmp_path):
    emails = people(0, PEOPLE)
    with cloud(scheme, monkeypatch) as bucket:
        table = f'[backfill.watch.bucket]\nsource = "{bucket.url("in/")}"\n{OPTIONS}'
        with Rig(tmp_path, more=table, redis_lines=f"high_water = {HIGH_WATER}") as rig:
            worker = start_worker(rig)
            looked(rig, "bucket")
            rig.command("pause", "insider", "--reason", "so that the reader has to wait")
            bucket.put("in/a.json.gz", gzip.compress(rows(emails)))
            until(lambda: job_of(rig).get("accepted", 0) >= HIGH_WATER, 90)

            kill_group(worker)
            assert worker.wait() == -signal.SIGKILL
            assert job_of(rig)["accepted"] < PEOPLE
            rig.command("resume", "insider")
            start_worker(rig)

            until(lambda: job_of(rig)["state"] == "done", 120)
            job = job_of(rig)
            assert (job["accepted"], job["delivered"]) == (PEOPLE, PEOPLE)
            assert len(rig.memberships()) == PEOPLE

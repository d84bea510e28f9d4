"""Failures of secrets and of backfills, staged one after the other."""

import orjson

from segrelay.ops.demo.rig import kill_group
from tests.journeys.health.staging import staged
from tests.journeys.judging import NAMED_SECONDS
from tests.journeys.play import start_worker, stop_worker
from tests.waiting import until

OTHER = """
[authorizations.other]
headers = { X-PARTNER-NAME = "acme", X-REQUEST-TOKEN = "env:KEY_OF_THE_TEST" }
[destinations.other]
api = "insider"
base_url = "SANDBOX"
authorization = "other"
rate = "600/min"
[triggers.other]
destination = "other"
audiences = ["newsletter"]
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"
"""


def test_failures_of_secrets_and_backfills_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("KEY_OF_THE_TEST", raising=False)
    rows = b"\n".join(orjson.dumps({"email": f"p{n}@example.com"}) for n in range(8_000))
    source = tmp_path / "rows.ndjson"
    job = ("--audience", "vip", "--as-of", "now", "--job", "killed")
    with staged(tmp_path, OTHER, redis_lines="high_water = 1000") as stage:
        rig = stage.rig
        worker = start_worker(rig)
        stage.named("trigger_stopped", "KEY_OF_THE_TEST", "segrelay config check")
        monkeypatch.setenv("KEY_OF_THE_TEST", "a key")
        stop_worker(worker)
        start_worker(rig)
        stage.cured()

        source.write_bytes(rows)
        stage.run("pause", "insider")  # so that the reader waits for room
        reader = rig.start_beside("backfill", "start", str(source), *job)
        until(lambda: rig.client.exists("{job:killed}"), NAMED_SECONDS)
        kill_group(reader)
        found = stage.named("job_interrupted", "nobody reads it", "segrelay backfill resume killed")
        assert found["since"]
        source.write_bytes(rows[:-1])
        assert rig.command("backfill", "resume", "killed").returncode != 0
        found = stage.named("job_failed", "rows.ndjson", "segrelay backfill status killed")
        assert found["since"]
        stage.run("backfill", "abort", "killed", "--yes")
        stage.run("resume", "insider")
        stage.cured()

"""Failures of Redis, staged one after the other."""

import shutil
import time
from contextlib import contextmanager

import pytest

from segrelay.worker.contract.processes import LIFE_MS
from tests.journeys.health.staging import staged
from tests.journeys.judging import entrances, ill_of, judged
from tests.journeys.play import start_worker
from tests.waiting import until


@contextmanager
def in_the_way(path):
    """Let a file not be written: a folder that is not empty has its name."""
    path.mkdir()
    (path / "full").touch()
    try:
        yield
    finally:
        shutil.rmtree(path)


def test_failures_of_redis_are_named(tmp_path):
    with staged(tmp_path) as stage:
        rig = stage.rig
        start_worker(rig)
        stage.cured()

        rig.client.config_set("maxmemory-policy", "allkeys-lru")
        stage.named("redis_not_durable", "maxmemory-policy", "segrelay redis status")
        rig.client.config_set("maxmemory-policy", "noeviction")
        stage.cured()

        rig.client.config_set("maxmemory", rig.client.info("memory")["used_memory"])
        stage.named("redis_full", "full", "segrelay redis status")
        rig.client.config_set("maxmemory", 0)
        stage.cured()

        rig.client.config_set("save", "3600 1")
        with in_the_way(rig.settings.redis.data_dir / "dump.rdb"):
            rig.client.config_set("stop-writes-on-bgsave-error", "no")
            rig.client.bgsave()
            stage.named("redis_disk_fails", "snapshot", "segrelay redis status")
        rig.client.bgsave()
        stage.cured()


@pytest.mark.nightly
def test_a_redis_that_refuses_writes_for_its_disk_is_named_and_nothing_is_lost(tmp_path):
    with staged(tmp_path) as stage:
        rig = stage.rig
        start_worker(rig)
        stage.enter(3)
        rig.wait_until_empty(30)
        stage.cured()

        rig.client.config_set("save", "3600 1")
        with in_the_way(rig.settings.redis.data_dir / "dump.rdb"):
            rig.client.bgsave()
            until(lambda: rig.client.info("persistence")["rdb_last_bgsave_status"] == "err", 15)
            problem = ill_of(rig, "redis_disk_fails")
            assert "refuses" in problem["message"], problem
            refused = rig.command("send", "-", given=entrances(5, 100))
            assert b"can't write to its disk" in refused.stderr, refused
            time.sleep(LIFE_MS / 1_000)  # by then nobody can have said that they run
            assert judged(rig)[1].keys() == {"redis_disk_fails"}
        rig.client.bgsave()
        stage.cured()
        assert rig.command("send", "-", given=entrances(5, 100)).returncode == 0
        stage.cured()

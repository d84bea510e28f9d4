"""Failures of Redis, staged one after the other."""

import shutil
from contextlib import contextmanager

import pytest

from tests.journeys.health.staging import staged
from tests.journeys.play import start_worker


@contextmanager
def in_the_way(path):
    """Let a file not be written: a folder that is not empty has its name."""
    path.mkdir()
    (path / "full").touch()
    try:
        yield
    finally:
        shutil.rmtree(path)


@pytest.mark.nightly  # by day `unit/ops/status`, and test_staged_deliveries.py
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

"""Failures of Redis, and what is missing, staged one after the other."""

import shutil
from contextlib import contextmanager

import pytest

from tests.journeys.channel import OVER, PROBLEM
from tests.journeys.health.staging import staged
from tests.journeys.judging import NAMED_SECONDS
from tests.journeys.play import start_worker
from tests.waiting import until


def test_whoever_is_missing_is_told_until_it_is_back_and_an_emptied_redis_until_it_is_known(
    tmp_path, receiver
):
    with staged(tmp_path, receiver.table()) as stage:
        rig = stage.rig
        rig.start_beside("serve")
        stage.named("no_worker", "", "segrelay worker")
        for _ in range(2):
            start_worker(rig)
        stage.cured()
        stage.channel.announced("no_worker", PROBLEM, OVER)

        rig.kill_redis()
        stage.channel.announced("redis_unreachable", PROBLEM)
        rig.start_redis()
        stage.cured()
        stage.channel.announced("redis_unreachable", PROBLEM, OVER)

        stage.enter(5)
        rig.wait_until_empty(NAMED_SECONDS)
        until(lambda: rig.client.exists("{segrelay}:instance"), NAMED_SECONDS)
        rig.kill_redis()
        for file in rig.settings.redis.data_dir.rglob("appendonly*.*"):
            file.unlink()
        rig.start_redis()
        stage.named("redis_emptied", "vip", "segrelay redis acknowledge")
        assert rig.client.get("{segrelay}:partitions") is not None
        stage.run("redis", "acknowledge")
        stage.cured()


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

"""Redis and the workers: whoever is missing is told until it is back, and announced once."""

import socket

from ops.embedded.launch import free_port
from tests.configuration import table
from tests.journeys.judging import NAMED_SECONDS, entrances, ill_of, well
from tests.journeys.play import SHORT, Rig, send, start_worker, stop_worker
from tests.waiting import until


def test_no_worker_is_told_though_nothing_waits(tmp_path, channel, receiver):
    with Rig(tmp_path, delivery_lines=SHORT, more=receiver.table() + channel.table()) as rig:
        rig.start_beside("serve")
        assert ill_of(rig, "no_worker")["command"] == "segrelay up, or segrelay worker"

        channel.announced("no_worker", "problem")
        worker = start_worker(rig)
        well(rig)
        channel.announced("no_worker", "problem", "problem_over")

        stop_worker(worker)
        ill_of(rig, "no_worker")


def test_no_worker_and_no_redis_are_announced_where_only_the_metrics_run_beside(tmp_path, channel):
    more = table("metrics", listen=f"127.0.0.1:{free_port()}") + channel.table()
    with Rig(tmp_path, delivery_lines=SHORT, more=more) as rig:
        rig.start_beside("metrics")
        channel.announced("no_worker", "problem")
        worker = start_worker(rig)
        channel.announced("no_worker", "problem", "problem_over")

        rig.kill_redis()
        channel.announced("redis_unreachable", "problem")
        rig.start_redis()
        well(rig)
        channel.announced("redis_unreachable", "problem", "problem_over")

        stop_worker(worker)
        begun, _ = channel.messages("redis_unreachable")
        assert begun["problem"]["subject"] == socket.gethostname()


def test_a_worker_alone_announces_that_it_has_lost_redis(tmp_path, channel):
    with Rig(tmp_path, delivery_lines=SHORT, more=channel.table()) as rig:
        start_worker(rig)
        start_worker(rig)
        well(rig)

        rig.kill_redis()
        channel.announced("redis_unreachable", "problem")
        rig.start_redis()
        well(rig)
        channel.announced("redis_unreachable", "problem", "problem_over")


def test_a_redis_that_comes_back_empty_is_told_until_it_is_acknowledged(tmp_path, channel):
    with Rig(tmp_path, delivery_lines=SHORT, more=channel.table()) as rig:
        start_worker(rig)
        send(rig, entrances(5))
        rig.wait_until_empty(NAMED_SECONDS)
        until(lambda: rig.client.exists("{segrelay}:birth"), NAMED_SECONDS)
        well(rig)

        rig.kill_redis()
        for file in rig.settings.redis.data_dir.rglob("appendonly*"):
            if file.is_file():
                file.unlink()
        rig.start_redis()
        found = ill_of(rig, "redis_emptied")

        assert "vip" in found["message"]
        assert rig.client.get("{segrelay}:partitions") is not None
        channel.announced("redis_emptied", "problem")
        assert rig.command("redis", "acknowledge").returncode == 0
        well(rig)
        channel.announced("redis_emptied", "problem", "problem_over")


def test_a_full_redis_is_told(tmp_path, channel):
    with Rig(tmp_path, delivery_lines=SHORT, more=channel.table()) as rig:
        start_worker(rig)
        well(rig)

        rig.client.config_set("maxmemory", rig.client.info("memory")["used_memory"])
        ill_of(rig, "redis_full")
        channel.announced("redis_full", "problem")

        rig.client.config_set("maxmemory", 0)
        well(rig)
        channel.announced("redis_full", "problem", "problem_over")


def test_a_receiver_tells_that_redis_came_back_empty_though_no_worker_runs(tmp_path, receiver):
    with Rig(tmp_path, delivery_lines=SHORT, more=receiver.table()) as rig:
        rig.start_beside("serve")
        until(lambda: rig.client.exists("{segrelay}:birth"), 60)
        until(lambda: rig.client.exists("{segrelay}:receiver"), 60)

        rig.client.flushall()

        assert "came back empty" in ill_of(rig, "redis_emptied")["message"]

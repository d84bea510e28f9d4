"""Redis and the workers: whoever is missing is told until it is back, and announced once."""

import socket

import pytest

from segrelay.ops.embedded.lifecycle import free_port
from tests.configuration import table
from tests.journeys.judging import ill_of, well
from tests.journeys.play import SHORT, Rig, start_worker, stop_worker


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


@pytest.mark.nightly
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

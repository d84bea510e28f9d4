"""Redis and the workers: whoever is missing is told until it is back, and announced once."""

from tests.journeys.judging import ill_of, well
from tests.journeys.play import SHORT, Rig, start_worker


def test_no_worker_is_told_though_nothing_waits_and_so_is_a_lost_redis(tmp_path, channel, receiver):
    with Rig(tmp_path, delivery_lines=SHORT, more=receiver.table() + channel.table()) as rig:
        rig.start_beside("serve")
        assert ill_of(rig, "no_worker")["command"] == "segrelay worker"
        channel.announced("no_worker", "problem")
        for _ in range(2):
            start_worker(rig)
        well(rig)
        channel.announced("no_worker", "problem", "problem_over")

        rig.kill_redis()
        channel.announced("redis_unreachable", "problem")
        rig.start_redis()
        well(rig)
        channel.announced("redis_unreachable", "problem", "problem_over")

"""A Redis that comes back empty: whoever runs tells it until somebody acknowledges it."""

from tests.journeys.judging import NAMED_SECONDS, entrances, ill_of, well
from tests.journeys.play import SHORT, Rig, send, start_worker
from tests.waiting import until


def test_a_redis_that_comes_back_empty_is_told_until_it_is_acknowledged(tmp_path, channel):
    with Rig(tmp_path, delivery_lines=SHORT, more=channel.table()) as rig:
        start_worker(rig)
        send(rig, entrances(5))
        rig.wait_until_empty(NAMED_SECONDS)
        until(lambda: rig.client.exists("{segrelay}:instance"), NAMED_SECONDS)
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

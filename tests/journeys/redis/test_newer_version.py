"""What a newer version wrote is refused with a sentence, and kept."""

from segrelay.worker.contract import keys
from tests.journeys.play import SHORT, Rig

COMMANDS = (("status",), ("send", "-"), ("dlq", "list"), ("worker",))


def test_a_redis_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    with Rig(tmp_path, redis_lines="partitions = 2", delivery_lines=SHORT) as rig:
        rig.client.set(keys.FORMAT, "2")
        before = {key: rig.client.dump(key) for key in rig.client.keys("*")}

        ended = [rig.command(*words) for words in COMMANDS]

        assert [one.returncode for one in ended] == [2] * len(COMMANDS)
        for said in (one.stderr.decode() for one in ended):
            assert "Redis holds format 2, this segrelay knows 1. Use the version that" in said
        assert {key: rig.client.dump(key) for key in rig.client.keys("*")} == before

"""What the processes of a worker ask of Redis as they begin."""

from itertools import takewhile

import pytest

from segrelay.worker.contract import keys
from tests.journeys.play import Rig, start_worker
from tests.rig import trigger_pairs

PAIRS = 150
"""So many that each process would find some that none of the others had told of by then."""


@pytest.mark.nightly
def test_a_node_tells_of_its_templates_once_however_many_processes_it_has(tmp_path):
    pairs = trigger_pairs([f"audience-{n}" for n in range(PAIRS)])
    with Rig(tmp_path, more=pairs) as rig, rig.client.monitor() as monitor:
        start_worker(rig, "--concurrency=8")
        rig.client.echo("over")
        commands = (each["command"] for each in monitor.listen())
        told = [each.split() for each in takewhile(lambda one: one != "ECHO over", commands)]

    calls = [words[5:] for words in told if words[3:5] == [keys.FINGERPRINTS, "HSET"]]
    assert sorted(name for words in calls for name in words[::2]) == sorted(rig.settings.triggers)

"""What a newer version wrote is refused with a sentence, and kept."""

import re

import orjson
import pytest

from segrelay.worker.contract import keys
from segrelay.worker.contract.ledger import RECORD_FORMAT
from tests.journeys.play import SHORT, Rig, invent, lines, send, start_worker
from tests.journeys.play import status_of as status
from tests.waiting import until

WRITTEN_BY_ANOTHER = r"has format (\d), and this version of segrelay knows \d: another version"


@pytest.fixture
def rig(tmp_path):
    with Rig(tmp_path, redis_lines="partitions = 2", delivery_lines=SHORT) as rig:
        yield rig


@pytest.mark.parametrize("words", [("status",), ("send", "-"), ("dlq", "list"), ("worker",)])
def test_a_redis_of_a_newer_version_is_refused_and_left_as_it_is(rig, words):
    rig.client.set(keys.FORMAT, "2")
    before = {key: rig.client.dump(key) for key in rig.client.keys("*")}

    done = rig.command(*words)

    assert done.returncode == 2
    said = done.stderr.decode()
    assert "Redis holds format 2, this segrelay knows 1. Use the version that wrote it" in said
    assert {key: rig.client.dump(key) for key in rig.client.keys("*")} == before


def newer_entry(rig):
    """Turn what waits into entries of a format to come."""
    for partition in rig.partitions():
        for name in rig.client.smembers(partition.streams):
            key = partition.stream(name.decode())
            for entry, fields in rig.client.xrange(key):
                header = orjson.loads(fields[b"h"])
                header[0] += 1
                rig.client.xdel(key, entry)
                newer = {**fields, b"h": orjson.dumps(header)}
                ms, _, number = entry.decode().partition("-")
                rig.client.xadd(key, newer, id=f"{ms}-{int(number) + 1_000}")


def newer_ledger(rig):
    """Turn the ledgers of those who are known into records of a format to come."""
    for partition in rig.partitions():
        ledgers = rig.client.scan_iter(match=f"{partition.tag}l*", _type="string")
        for key in ledgers:
            rig.client.setrange(key, 0, bytes([RECORD_FORMAT + 1]))


@pytest.mark.parametrize("change", [newer_entry, newer_ledger])
def test_what_a_newer_version_wrote_pauses_its_trigger_and_nothing_is_lost(rig, change):
    happened, _ = invent(60, 5)
    worker = start_worker(rig)
    send(rig, lines(happened[:30]))
    rig.wait_until_empty(30)
    worker.terminate()
    worker.wait(120)
    send(rig, lines(happened[30:]))
    before = status(rig)
    change(rig)

    start_worker(rig)
    rigs = ("enter", "exit", "exit-event")
    until(lambda: all(status(rig)["triggers"][t]["state"] == "paused" for t in rigs), 30)

    after = status(rig)
    assert (after["waiting"], after["dead"]) == (before["waiting"], 0)
    for trigger in rigs:
        assert re.search(WRITTEN_BY_ANOTHER, after["triggers"][trigger]["reason"])

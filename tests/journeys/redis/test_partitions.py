"""The number of partitions changes while everything stands still, and the command is killed."""

import os
import signal
import time
from collections import Counter

import orjson
import pytest

from segrelay.ops.demo.rig import DESTINATION, kill_group
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.partitions import Numbering
from segrelay.worker.contract.processes import read_processes
from tests.journeys.lytics_relay import arrived, relaying
from tests.journeys.play import PARTITIONS, status_of
from tests.nightly import amount
from tests.waiting import until

STRANGERS = amount(25_000, nightly=300_000)
"""Profiles of whom nothing comes: their records keep the command busy."""
STOPPED_SECONDS = amount(13.0, nightly=20.0)
"""Longer than the partitions are held for an attempt that writes nothing."""
KILLS = {5: 3, 64: 2}


def numbering(rig):
    return Numbering.loads(rig.client.get(keys.PARTITIONS))


def add_strangers(rig):
    present, pipe = numbering(rig), rig.client.pipeline(transaction=False)
    for n in range(STRANGERS):
        key = f"email:stranger{n}@example.com"
        partition = PartitionKeys(DESTINATION, present.of(key))
        pipe.set(partition.ledger(digest_of(key)), b"?")
    pipe.execute()


def records(rig):
    """Return how often there is a record of each digest, and the partitions in which it stands."""
    found, partitions = Counter(), {}
    for name in rig.client.scan_iter(match=f"{{{DESTINATION}:*}}l*", count=10_000):
        number, _, part = name[len(DESTINATION) + 2 :].partition(b"}l")
        if len(part) == keys.DIGEST_BYTES and part != b"ettertimes":
            found[part] += 1
            partitions[part] = int(number)
    return found, partitions


def change(rig, count):
    """Start the command, and wait until it copies, or has ended."""
    before = rig.client.get(keys.RENUMBERING)
    begun = rig.start_beside("redis", "partitions", str(count), "--yes")
    until(lambda: rig.client.get(keys.RENUMBERING) != before or begun.poll() is not None, 60)
    return begun


def killed(rig, count, rng):
    """Let the command be killed in the middle of its work; say whether it was."""
    begun = change(rig, count)
    time.sleep(rng.uniform(0.0, 0.2))
    was_running = begun.poll() is None
    kill_group(begun)
    return was_running


def stand_still(rig, count):
    """Let an attempt stand still while another one does all of it, and then go on."""
    begun = change(rig, count)
    assert begun.poll() is None
    os.killpg(begun.pid, signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    changed(rig, count)
    os.killpg(begun.pid, signal.SIGCONT)
    assert begun.wait(120) in {0, 1}


def changed(rig, count):
    done = rig.command("redis", "partitions", str(count), "--yes", "--json")
    assert done.returncode == 0, done.stderr.decode()
    assert orjson.loads(done.stdout)["to"] == count


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def all_is_in_its_partition(relay, counts):
    rig = relay.rig
    assert numbering(rig) == Numbering(counts)
    found, partitions = records(rig)
    people = {digest_of(f"email:{email}") for email in relay.truth()}
    assert set(found.values()) == {1}
    assert people <= set(found)
    assert STRANGERS + len(people) <= len(found) <= STRANGERS + 200
    assert all(numbering(rig).of_digest(digest) == at for digest, at in partitions.items())
    # A receiver that stood still says for some seconds that its timers were late.
    until(lambda: rig.command("status", "--check").returncode == 0, 60, else_show=rig.worker_log(0))


def test_the_number_changes_while_nothing_runs_whatever_is_killed(tmp_path):
    with relaying(tmp_path) as relay:
        rig = relay.rig
        relay.move()
        until(lambda: status_of(rig)["delivered"] > 50, 60)
        # A worker says every five seconds that it runs.
        until(lambda: read_processes(rig.client), 30)
        refused = rig.command("redis", "partitions", "5", "--yes")
        assert refused.returncode == 1
        assert b"worker " in refused.stderr
        assert b"receiver " in refused.stderr
        relay.move()
        stop(relay.worker)
        stop(relay.process)
        add_strangers(rig)
        kills = 0
        for count, times in KILLS.items():
            kills += sum(killed(rig, count, relay.rng) for _ in range(times))
            stand_still(rig, count)

        assert kills >= 2
        relay.kill_worker()
        relay.kill_receiver()
        relay.move()
        arrived(relay, 120)
        all_is_in_its_partition(relay, (PARTITIONS, 5, 64))


@pytest.mark.nightly
def test_whoever_stands_still_across_the_change_writes_nothing_where_it_was(tmp_path):
    with relaying(tmp_path) as relay:
        rig = relay.rig
        relay.move()
        until(lambda: status_of(rig)["delivered"] > 50, 60)
        add_strangers(rig)
        relay.move()
        asleep = (relay.worker, relay.process)
        for process in asleep:
            os.killpg(process.pid, signal.SIGSTOP)
        until(lambda: rig.command("redis", "partitions", "5", "--yes").returncode == 0, 90)
        for process in asleep:
            os.killpg(process.pid, signal.SIGCONT)
        relay.move()

        arrived(relay, 120)
        all_is_in_its_partition(relay, (PARTITIONS, 5))
        former = [rig.client.keys(f"{{{DESTINATION}:{number}}}*") for number in range(PARTITIONS)]
        assert {name.partition(b"}")[2] for names in former for name in names} <= {
            b"lease", b"wakeup"
        }  # fmt: skip

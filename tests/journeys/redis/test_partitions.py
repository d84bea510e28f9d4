"""The number of partitions changes while events flow in, and the command is killed and stopped."""

import os
import signal
import time
from collections import Counter

import orjson

from segrelay.ops.demo.rig import DESTINATION, kill_group
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.partitions import Numbering
from tests.journeys.lytics_relay import arrived, relaying
from tests.journeys.play import PARTITIONS, status_of
from tests.nightly import amount
from tests.waiting import until

STRANGERS = amount(6_000, nightly=300_000)
"""Profiles of whom nothing comes: their records keep the command busy."""
STOPPED_SECONDS = amount(13.0, nightly=20.0)
"""Longer than it is held for a command that does not renew it."""
KILLS = {5: 3, 64: 2}


def numbering(rig):
    return Numbering.loads(rig.client.get(keys.PARTITIONS))


def add_strangers(rig):
    present, pipe = numbering(rig), rig.client.pipeline(transaction=False)
    for n in range(STRANGERS):
        key = f"email:stranger{n}@example.com"
        place = PartitionKeys(DESTINATION, present.of(key))
        pipe.set(place.ledger(digest_of(key)), b"?")
    pipe.execute()


def records(rig):
    """Return how often there is a record of each digest, and the partitions in which it stands."""
    found, places = Counter(), {}
    for name in rig.client.scan_iter(match=f"{{{DESTINATION}:*}}l*", count=10_000):
        number, _, part = name[len(DESTINATION) + 2 :].partition(b"}l")
        if len(part) == keys.DIGEST_BYTES and part != b"ettertimes":
            found[part] += 1
            places[part] = int(number)
    return found, places


def change(rig, count):
    return rig.start_beside("redis", "partitions", str(count), "--yes")


def disturb(rig, count, rng):
    """Let the command be killed in the middle of its work."""
    begun = change(rig, count)
    until(lambda: rig.client.hget(keys.RENUMBERING, "seen_ms") or begun.poll() is not None, 60)
    time.sleep(rng.uniform(0.0, 0.8))
    was_running = begun.poll() is None
    kill_group(begun)
    return was_running


def stand_still(rig, count):
    begun = change(rig, count)
    until(lambda: rig.client.hget(keys.RENUMBERING, "seen_ms") or begun.poll() is not None, 60)
    os.kill(begun.pid, signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    os.kill(begun.pid, signal.SIGCONT)
    assert begun.wait(120) == 0


def test_the_number_of_partitions_changes_under_load_whatever_is_killed(tmp_path):
    with relaying(tmp_path) as relay:
        rig = relay.rig
        relay.move()
        until(lambda: status_of(rig)["delivered"] > 50, 60)
        add_strangers(rig)
        killed = 0
        for count, kills in KILLS.items():
            for _ in range(kills):
                relay.move()
                killed += disturb(rig, count, relay.rng)
            if count == 64:
                stand_still(rig, count)
            done = rig.command("redis", "partitions", str(count), "--yes", "--json")
            assert done.returncode == 0, done.stderr.decode()
            assert orjson.loads(done.stdout)["to"] == count
            relay.move()
        arrived(relay, 120)

        assert killed >= 3
        assert numbering(rig) == Numbering((PARTITIONS, 5, 64))
        found, places = records(rig)
        people = {digest_of(f"email:{email}") for email in relay.truth()}
        assert set(found.values()) == {1}
        assert people <= set(found)
        assert STRANGERS + len(people) <= len(found) <= STRANGERS + 200
        assert all(numbering(rig).of_digest(digest) == at for digest, at in places.items())
        check = rig.command("status", "--check")
        assert check.returncode == 0, check.stdout.decode()

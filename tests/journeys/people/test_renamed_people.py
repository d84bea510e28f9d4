"""A file of people who change their address, by a command that is killed: all follows them."""

import os
import random
import signal
import time
from datetime import UTC, datetime

import orjson
import pytest

from segrelay.ops.demo.rig import kill_group
from segrelay.ops.state.person import Names, read_records
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of, partition_of
from segrelay.worker.contract.words import Direction
from tests.journeys.play import SHORT, Rig, start_worker, status_of
from tests.nightly import amount
from tests.waiting import until

PEOPLE = amount(800, nightly=10_000)
KILLS = amount(4, nightly=5)
SLUG, LATE = "vip", "cart-abandoners"
SECONDS = amount(240, nightly=1_200)


def old(number):
    return f"p{number}@example.com"


def new(number):
    return f"q{number}@example.org"


def tell(publisher, emails, slug, direction="enter"):
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    entry = {"id": slug * 2, "slug": slug, "event": direction, direction: at}
    rows = [orjson.dumps({"email": email, "segment_events": [entry]}) for email in emails]
    for first in range(0, len(rows), 500):
        publisher.publish(rows[first : first + 500])


def members_by_ledger(rig, emails):
    """Return who is in the audience by the ledger."""
    names, count = Names(rig.client), rig.settings.redis.partitions
    found = set()
    for email in emails:
        key = f"email:{email}"
        partition = PartitionKeys("insider", partition_of(key, count))
        (record,) = read_records(rig.client, partition, [digest_of(key)])
        lines = [line for line in names.lines(record) if line.audience == SLUG]
        newest = max(lines, key=lambda line: line.delivered_us, default=None)
        if newest is not None and newest.direction is Direction.ENTER:
            found.add(email)
    return found


def test_insider_and_the_ledger_agree_after_a_file_of_renames_that_was_killed(tmp_path):
    rng = random.Random(3)
    everybody = range(PEOPLE)
    file = tmp_path / "changes.csv"
    file.write_text("old,new\n" + "".join(f"{old(n)},{new(n)}\n" for n in everybody))
    command = ("rename", "person", "--file", str(file), "--rate", "60000", "--json")
    with Rig(tmp_path, delivery_lines=SHORT) as rig:
        publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
        tell(publisher, map(old, everybody), SLUG)
        start_worker(rig)
        rig.wait_until_empty(120)

        for _ in range(KILLS):
            killed = rig.start_beside(*command)
            late = rng.sample(everybody, PEOPLE // 50)
            tell(publisher, map(old, late), LATE)
            time.sleep(rng.uniform(1.0, 4.0))
            kill_group(killed)
        leavers = rng.sample(everybody, PEOPLE // 10)
        tell(publisher, map(old, leavers), SLUG, "exit")
        done = rig.command(*command, timeout=SECONDS)
        assert done.returncode == 0, done.stderr.decode()
        assert orjson.loads(done.stdout)["refused"] == 0
        tell(publisher, map(old, leavers[::2]), SLUG)
        rig.wait_until_empty(120)

        held = {email for email, slugs in rig.memberships().items() if SLUG in slugs}
        truth = set(map(new, everybody)) - set(map(new, leavers[1::2]))
        assert held == truth
        assert members_by_ledger(rig, map(new, everybody)) == truth
        assert members_by_ledger(rig, map(old, everybody)) == set()
        assert not any(email.endswith("example.com") for email in rig.memberships())
        assert status_of(rig)["dead"] == 0
        assert not rig.client.exists(keys.RENAMING)


FEW = amount(150, nightly=2_000)
STANDS_STILL_SECONDS = amount(3, nightly=20)
"""Insider is away meanwhile. By night it is longer than anybody waits for a lease."""


@pytest.mark.nightly
def test_a_renaming_survives_an_outage_a_process_that_stands_still_and_a_restart_of_redis(tmp_path):
    everybody = range(FEW)
    file = tmp_path / "changes.csv"
    file.write_text("".join(f"{old(n)},{new(n)}\n" for n in everybody))
    command = ("rename", "person", "--file", str(file), "--rate", "60000", "--json")
    with Rig(tmp_path, delivery_lines=SHORT) as rig:
        publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
        tell(publisher, map(old, everybody), SLUG)
        start_worker(rig)
        rig.wait_until_empty(120)
        late = everybody[::3]

        stopped = rig.start_beside(*command)
        until(lambda: rig.client.exists(keys.RENAMING), 60)
        rig.sandbox.settings(error_shares={"503": 1.0})
        os.killpg(stopped.pid, signal.SIGSTOP)
        tell(publisher, map(old, late), LATE)
        time.sleep(STANDS_STILL_SECONDS)
        rig.kill_redis()
        rig.start_redis()
        os.killpg(stopped.pid, signal.SIGCONT)
        time.sleep(2)
        rig.sandbox.settings(error_shares={})
        stopped.wait(120)
        done = rig.command(*command, timeout=SECONDS)

        assert done.returncode == 0, done.stderr.decode()
        rig.wait_until_empty(120)
        held = rig.memberships()
        assert set(held) == set(map(new, everybody))
        assert {email for email, slugs in held.items() if SLUG in slugs} == set(held)
        assert {email for email, slugs in held.items() if LATE in slugs} == set(map(new, late))
        assert members_by_ledger(rig, map(new, everybody)) == set(held)
        assert members_by_ledger(rig, map(old, everybody)) == set()
        assert status_of(rig)["dead"] == 0
        assert not rig.client.exists(keys.RENAMING)

"""Deliveries that wait for longer than the ledger remembers, on the whole system."""

import time
from datetime import UTC, datetime

import orjson

from segrelay.sandbox.people import Happening
from segrelay.worker.contract.keys import PartitionKeys
from tests.journeys.play import SHORT, Rig, lines, publish, start_worker, status_of, watched
from tests.ledger_keys import age_ledger, digest_in
from tests.waiting import until

RETENTION_SECONDS = 60
BEFORE_SECONDS = 1_200
"""By how much ledgers are made older: more than the retention and its leeway."""
WAITING = [f"person{n}@example.com" for n in range(20)]
OF_JOB = [f"person{n}@example.com" for n in range(20, 40)]


def events_of(people, at, *, is_exit):
    return [
        Happening(email, "vip", is_exit=is_exit, time_us=int(at * 1_000_000)) for email in people
    ]


def run(rig, *arguments):
    answer = rig.command(*arguments)
    assert answer.returncode == 0, answer.stderr.decode()


def start_paused_job(rig, at, people):
    path = rig.folder / "rows.ndjson"
    path.write_bytes(b"\n".join(orjson.dumps({"email": email}) for email in people) + b"\n")
    as_of = datetime.fromtimestamp(at, UTC).isoformat()
    options = ("--audience", "vip", "--as-of", as_of, "--job", "load")
    run(rig, "backfill", "start", str(path), *options)
    run(rig, "backfill", "pause", "load")


def ledgers(rig):
    """Return the keys of all ledgers."""
    partitions = [
        PartitionKeys(name, number)
        for name in rig.settings.destinations
        for number in range(rig.settings.redis.partitions)
    ]
    names = rig.client.keys("*")
    return [name for partition in partitions for name in names if digest_in(name, partition)]


def test_what_waited_for_longer_than_the_ledger_lasts_passes_no_newer_exit(tmp_path):
    delivery = f'{SHORT}\nledger_retention = "{RETENTION_SECONDS}s"'
    with Rig(tmp_path, delivery_lines=delivery, exit_events=False) as rig, watched(rig):
        entered_at = time.time()
        run(rig, "pause", "enter", "--reason", "a template is written")
        publish(rig, lines(events_of(WAITING, entered_at, is_exit=False)))
        start_paused_job(rig, entered_at, OF_JOB)
        start_worker(rig)
        publish(rig, lines(events_of(WAITING + OF_JOB, time.time(), is_exit=True)))
        until(lambda: status_of(rig)["delivered"] == 40, 60)
        left_at = time.monotonic()
        until(lambda: time.monotonic() > left_at + RETENTION_SECONDS + 2, 90)

        run(rig, "resume", "enter")
        run(rig, "backfill", "resume", "load")
        until(lambda: status_of(rig)["waiting"] == 0, 60)

        assert not rig.memberships()
        assert status_of(rig)["skipped_by_reason"] == {"superseded": 40}
        assert len(ledgers(rig)) == 40
        for name in ledgers(rig):
            age_ledger(rig.client, name, 1_000 * BEFORE_SECONDS)
        until(lambda: not ledgers(rig), 60)

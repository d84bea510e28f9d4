"""A backfill from a bucket, killed in the middle: each person is delivered once."""

import gzip
import signal

import orjson
import pytest

from segrelay.ops.demo.rig import kill_group
from tests.journeys.play import Rig, start_worker
from tests.nightly import amount
from tests.s3 import BUCKET, s3_bucket
from tests.waiting import until

PEOPLE = amount(8_000, nightly=60_000)
AS_OF = ("--audience", "vip", "--as-of", "2026-11-20T06:00:00Z", "--older-than-ledger")
SOURCE = f"s3://{BUCKET}/exports/2026-*/part-*.json.gz"
HIGH_WATER = 1_500


@pytest.fixture
def s3(monkeypatch):
    with s3_bucket(monkeypatch) as client:
        yield client


def put_people(s3, *, padding="x" * 400):
    """Put two packed files of people; returns their addresses."""
    emails = [f"person{number}@example.com" for number in range(PEOPLE)]
    for number, part in enumerate((emails[: PEOPLE // 2], emails[PEOPLE // 2 :])):
        rows = b"".join(orjson.dumps({"email": email, "pad": padding}) + b"\n" for email in part)
        key = f"exports/2026-11-2{number}/part-{number}.json.gz"
        s3.put_object(Bucket=BUCKET, Key=key, Body=gzip.compress(rows))
    return emails


def kill_in_the_middle(rig):
    """Start a job whose reader waits for room, and kill it."""
    arguments = ("backfill", "start", SOURCE, *AS_OF, "--job", "load")
    reading = rig.start_beside(*arguments)
    until(lambda: accepted(rig) >= HIGH_WATER, 60)
    kill_group(reading)
    assert reading.wait() == -signal.SIGKILL
    assert accepted(rig) < PEOPLE


def accepted(rig):
    status = rig.command("backfill", "status", "load", "--json")
    return orjson.loads(status.stdout)["accepted"] if status.returncode == 0 else 0


def test_a_backfill_from_a_bucket_goes_on_exactly_where_it_was_killed(s3, tmp_path):
    emails = put_people(s3)
    with Rig(tmp_path, redis_lines=f"high_water = {HIGH_WATER}") as rig:
        kill_in_the_middle(rig)
        start_worker(rig)

        done = rig.command("backfill", "resume", "load", "--wait", "--json")

        assert done.returncode == 0, done.stderr.decode()
        document = orjson.loads(done.stdout)
        assert (document["state"], document["delivered"]) == ("done", len(emails))
        assert document["accepted"] == len(emails)
        assert len(rig.memberships()) == len(emails)


def test_a_killed_job_is_not_resumed_on_an_object_that_was_replaced(s3, tmp_path):
    put_people(s3)
    with Rig(tmp_path, redis_lines=f"high_water = {HIGH_WATER}") as rig:
        kill_in_the_middle(rig)
        put_people(s3, padding="y" * 400)

        refused = rig.command("backfill", "resume", "load")

        assert refused.returncode == 2
        assert b"has changed since job 'load' began" in refused.stderr
        assert b"canary-of-a-secret" not in refused.stderr


def test_events_are_sent_from_a_bucket(s3, tmp_path):
    event = {"email": "ann@example.com", "segment_events": []}
    s3.put_object(Bucket=BUCKET, Key="events.json", Body=orjson.dumps(event))
    with Rig(tmp_path) as rig:
        sent = rig.command("send", f"s3://{BUCKET}/events.json", "--dry-run", "--json")
        assert orjson.loads(sent.stdout)["payloads"] == 1, sent.stderr.decode()

        missing = rig.command("send", f"s3://{BUCKET}/none.json")
        assert missing.returncode == 2
        assert b"there is no such object or bucket" in missing.stderr

"""Files in buckets and on web servers: whatever breaks in between, each person is there once."""

import gzip
import signal

import orjson
import pytest

from segrelay.ops.demo.rig import kill_group
from segrelay.producer.sources.remote import RANGE_BYTES
from tests.journeys.play import Rig, start_worker
from tests.nightly import amount
from tests.s3 import BUCKET, s3_bucket, web_server
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


def test_a_job_goes_on_after_its_web_server_was_away(tmp_path):
    emails = [f"person{number}@example.com" for number in range(1_500)]
    rows = b"".join(orjson.dumps({"email": e, "pad": "x" * 8_000}) + b"\n" for e in emails)
    assert len(rows) > RANGE_BYTES
    with web_server(has_ranges=True) as web, Rig(tmp_path) as rig:
        web.files["/people.json"] = rows
        web.broken_from = RANGE_BYTES
        start_worker(rig)

        words = ("backfill", "start", f"{web.url}/people.json", *AS_OF, "--job", "load")
        failed = rig.command(*words)

        assert failed.returncode == 1
        assert b"can't be read now: status 503" in failed.stderr
        web.broken_from = len(rows)
        done = rig.command("backfill", "resume", "load", "--wait", "--json")
        assert done.returncode == 0, done.stderr.decode()
        assert orjson.loads(done.stdout)["delivered"] == len(emails)
        assert len(rig.memberships()) == len(emails)


def test_a_sync_reads_a_file_on_a_web_server(tmp_path):
    with web_server(has_ranges=True) as web:
        web.files["/vip.csv"] = b"email\nann@example.com\nbob@example.com\n"
        sync = f'[sync.vip]\naudience = "vip"\nevery = "1h"\nsource = "{web.url}/vip.csv"\n'
        with Rig(tmp_path, more=sync) as rig:
            start_worker(rig)

            until(lambda: len(rig.memberships()) == 2, 60)

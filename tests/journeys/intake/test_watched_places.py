"""Watched places with a running worker: each new file is delivered, whatever breaks in between."""

import gzip

import orjson
import pytest

from segrelay.producer.backfill.jobs import read_watch
from tests.child_processes import command_of, lives, with_descendants
from tests.configuration import table
from tests.journeys.play import Rig, start_worker, status_of, stop_worker
from tests.s3 import BUCKET, s3_bucket
from tests.waiting import until

PEOPLE = 60_000
HIGH_WATER = 1_500
OPTIONS = {"audience": "vip", "as_of": "file", "every": "1s", "settle": "500ms"}
FOLDER = table("backfill.watch.drop", source="incoming/", **OPTIONS)
PREFIX = table("backfill.watch.bucket", source=f"s3://{BUCKET}/in/", **OPTIONS)


@pytest.fixture
def s3(monkeypatch):
    with s3_bucket(monkeypatch) as client:
        yield client


def put(rig, name, emails):
    """Put a file into the folder under another name, and rename it."""
    part = rig.folder / "incoming" / f"{name}.part"
    part.write_bytes(rows(emails))
    part.rename(part.with_suffix(""))


def put_object(s3, key, emails):
    s3.put_object(Bucket=BUCKET, Key=key, Body=gzip.compress(rows(emails)))


def rows(emails):
    return b"".join(orjson.dumps({"email": email, "pad": "x" * 400}) + b"\n" for email in emails)


def people(first, count):
    return [f"person{number}@example.com" for number in range(first, first + count)]


def jobs(rig):
    return status_of(rig)["jobs"]


def job_of(rig):
    """Return the only job; {} = there is none yet."""
    found = list(jobs(rig).values())
    assert len(found) < 2
    return found[0] if found else {}


def looked(rig, name):
    """Wait until a watch has looked for the first time."""
    until(lambda: read_watch(rig.client, name).looked_ms, 60)


def are_done(rig, count, emails):
    states = [row["state"] for row in jobs(rig).values()]
    return states == ["done"] * count and set(rig.memberships()) == set(emails)


def test_new_files_of_a_folder_and_a_bucket_are_delivered(s3, tmp_path):
    (tmp_path / "incoming").mkdir()
    with Rig(tmp_path, more=FOLDER + PREFIX) as rig:
        put(rig, "old.json", people(900, 5))
        put_object(s3, "in/old.json.gz", people(905, 5))
        worker = start_worker(rig)
        looked(rig, "drop")
        looked(rig, "bucket")

        put(rig, "a.json", people(0, 10))
        put_object(s3, "in/b.json.gz", people(10, 10))
        until(lambda: are_done(rig, 2, people(0, 20)), 60)
        put_object(s3, "in/b.json.gz", people(15, 10))

        until(lambda: are_done(rig, 3, people(0, 25)), 60)
        assert [read_watch(rig.client, name).existing for name in ("drop", "bucket")] == [1, 1]
        code, _ = stop_worker(worker)
        assert code == 0


@pytest.mark.nightly
def test_a_reader_ends_with_its_worker(tmp_path):
    (tmp_path / "incoming").mkdir()
    with Rig(tmp_path, more=FOLDER, redis_lines=f"high_water = {HIGH_WATER}") as rig:
        worker = start_worker(rig)
        looked(rig, "drop")
        rig.command("pause", "insider", "--why", "so that the reader has to wait")
        put(rig, "a.json", people(0, PEOPLE))
        until(lambda: job_of(rig).get("accepted", 0) >= HIGH_WATER, 90)
        (reader,) = until(lambda: job_of(rig)["state"] == "reading" and readers(worker))

        stop_worker(worker)

        until(lambda: job_of(rig)["state"] == "interrupted", 30)
        until(lambda: not lives(reader), 30)


def readers(worker):
    """Return the ids of the processes of a worker that read jobs."""
    return {pid for pid in with_descendants(worker.pid) if b"backfill.reading" in command_of(pid)}

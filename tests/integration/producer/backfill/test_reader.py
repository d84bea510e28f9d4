"""The process that reads a job of a watch, and not without its owner."""

from contextlib import closing

import pytest

from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.backfill.reading import JobReader
from segrelay.worker.contract.redis.connection import connect
from tests.integration.producer.backfill.watched import Watched
from tests.waiting import until


@pytest.fixture
def watched(tmp_path, redis_url):
    """Yield a watch whose jobs nobody reads."""
    with closing(connect(redis_url)) as client:
        found = Watched(tmp_path, redis_url, client)
        found.reads = False
        found.step()
        yield found


def taken(watched, name, *people):
    """Put a file there, and return the job that the watch makes of it."""
    watched.put(name, *people)
    watched.step()
    return watched.job(name).spec.name


def read(watched, job):
    reader = JobReader(watched.settings, job)
    until(lambda: not reader.is_reading(), 60)
    reader.end()


def phase(watched, job):
    return JobStore(watched.client).named(job).phase


def test_a_job_that_fails_is_told(watched):
    damaged = taken(watched, "a.csv", "ann")
    (watched.incoming / "a.csv").write_bytes(b"email\nanother@example.com\n")

    read(watched, damaged)
    read(watched, "gone")

    assert phase(watched, damaged) == "failed"


def test_a_reading_is_over_when_its_process_is(watched):
    job = taken(watched, "a.csv", "ann")
    reader = JobReader(watched.settings, job)

    reader.end()

    assert not reader.is_reading()

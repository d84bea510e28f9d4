"""The process that reads the jobs of watches: one after the other, and not without its owner."""

from contextlib import closing

import pytest

from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.backfill.reader import JobReader
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


@pytest.fixture
def reader(watched):
    found = JobReader(watched.settings)
    yield found
    found.end()


def taken(watched, name, *people):
    """Put a file there, and return the job that the watch makes of it."""
    watched.put(name, *people)
    watched.step()
    return watched.job(name).spec.name


def ended(is_read):
    until(lambda: not is_read(), 60)


def phase(watched, job):
    return JobStore(watched.client).named(job).phase


def test_one_process_reads_one_job_after_the_other(watched, reader):
    first = taken(watched, "a.csv", "ann", "bob")
    ended(reader.read(first))
    assert reader.is_idle()
    second = taken(watched, "b.csv", "cyd")

    is_read = reader.read(second)
    assert not reader.is_idle()
    ended(is_read)

    assert (phase(watched, first), phase(watched, second)) == ("read", "read")
    assert watched.published() == ["ann", "bob", "cyd"]
    assert reader.is_alive()


def test_jobs_that_fail_or_are_gone_do_not_end_it(watched, reader):
    damaged = taken(watched, "a.csv", "ann")
    (watched.incoming / "a.csv").write_bytes(b"email\nanother@example.com\n")

    ended(reader.read(damaged))
    ended(reader.read("gone"))
    watched.step()
    whole = watched.job("a.csv").spec.name
    ended(reader.read(whole))

    assert phase(watched, damaged) == "failed"
    assert phase(watched, whole) == "read"
    assert reader.is_idle()


def test_jobs_by_an_earlier_configuration_are_read_by_the_one_of_now(watched, reader):
    job = taken(watched, "a.csv", "ann")
    config = watched.folder / "segrelay.toml"
    text = config.read_text()
    config.write_text("no configuration")
    ended(reader.read(job))
    assert phase(watched, job) == "reading"

    config.write_text(text)
    ended(reader.read(job))

    assert phase(watched, job) == "read"


def test_a_reading_is_over_when_its_process_is(watched, reader):
    job = taken(watched, "a.csv", "ann")
    reader.end()

    assert not reader.read(job)()
    assert not reader.is_idle()
    assert phase(watched, job) == "reading"

"""A watch of a folder on a real Redis, step by step."""

import gzip
import os
import time

import pytest

from segrelay.ops.status.command import read_status
from segrelay.ops.status.health import read_problems
from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.backfill.reading import JobReader
from segrelay.producer.sources.remote import FileState
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.settings.sections import BackfillTables
from tests.configuration import trigger
from tests.integration.producer.backfill.watched import Watched
from tests.interruptions import Case, interrupted_anywhere
from tests.nightly import amount
from tests.waiting import until

EVERY, TIMES = amount((4, 3), nightly=(1, 12))
A_MINUTE_AGO = time.time() - 60


@pytest.fixture
def watched(tmp_path, redis_url, client):
    return Watched(tmp_path, redis_url, client)


def test_what_is_there_at_the_first_look_is_left_alone(watched):
    watched.put("old.csv", "ann")

    watched.step()
    watched.put("new.csv", "bob", "cyd")
    watched.step()

    assert watched.jobs() == [("new.csv", "read")]
    assert watched.published() == ["bob", "cyd"]
    assert watched.state().existing == 1
    (act,) = read_acts(watched.client)
    assert (act.what, act.by) == ("backfill start", "segrelay")
    assert act.subject == watched.job("new.csv").spec.name
    assert act.arguments["watch"] == "drop"


def test_what_is_there_is_taken_where_that_is_configured(watched):
    watched.configure(existing="take")
    for name in ("b", "a", "c"):
        watched.put(f"{name}.csv", name)

    watched.step()

    assert [file for file, _ in watched.jobs()] == ["a.csv", "b.csv", "c.csv"]
    assert watched.published() == ["a", "b", "c"]


def test_each_version_of_a_file_is_taken_once(watched):
    watched.step()
    for changed_at, people in enumerate((["ann"], ["ann", "bob"], ["ann"]), int(A_MINUTE_AGO)):
        path = watched.put("vip.csv", *people)
        os.utime(path, (changed_at, changed_at))
        for _ in range(3):
            watched.step()

    assert watched.jobs() == [("vip.csv", "read")] * 3
    assert watched.published() == ["ann", "ann", "ann", "bob"]


def test_an_object_that_gets_its_former_content_again_is_another_version(watched):
    """Its ETag, which is made of the content, is the former one as well."""
    job_of = watched.watching()._job_of
    versions = [FileState(6, "an ETag", changed_ns) for changed_ns in (10**9, 2 * 10**9)]

    assert len({job_of("s3://exports/vip.csv", each) for each in versions}) == 2


def test_a_file_that_grows_is_taken_when_it_has_stood_still(watched):
    watched.configure(settle="50s", every="1h")
    watched.step()
    path = watched.incoming / "vip.csv"
    with path.open("wb", buffering=0) as file:
        file.write(b"email\nann@example.com\n")
        watched.step()
        due_in_ms = watched.state().next_ms - watched.state().looked_ms
        file.write(b"bob@example.com\n")
        watched.step()
        assert watched.jobs() == []
    os.utime(path, (A_MINUTE_AGO, A_MINUTE_AGO))

    watched.step()

    assert due_in_ms <= 60_000
    assert watched.published() == ["ann", "bob"]


def test_a_damaged_file_fails_its_job_and_the_next_one_is_taken(watched):
    watched.step()
    rows = b"email\n" + b"".join(b"p%d@example.com\n" % n for n in range(5_000))
    watched.put("a.csv", content=gzip.compress(rows)[:-2_000])
    watched.put("b.csv", "bob")

    watched.step()

    assert watched.jobs() == [("a.csv", "failed"), ("b.csv", "read")]
    assert "a.csv is damaged" in watched.job("a.csv").problem
    assert "bob" in watched.published()
    assert len(watched.published()) > 1


def test_a_file_of_which_no_job_can_be_made_is_tried_again_and_stops_nobody(watched):
    watched.step()
    watched.put("a.csv", content=b"%PDF-1.7")
    watched.put("b.csv", "bob")
    for _ in range(2):
        watched.step()
    refused = watched.state().refused
    assert watched.jobs() == [("b.csv", "read")]
    watched.put("a.csv", "ann")

    watched.step()

    assert refused == {f"{watched.incoming}/a.csv": f"{watched.incoming}/a.csv is a PDF."}
    assert watched.state().refused == {}
    assert watched.published() == ["ann", "bob"]


def test_a_folder_that_is_away_is_a_problem_and_no_empty_one(watched):
    watched.put("old.csv", "zoe")
    elsewhere = watched.folder / "away"
    away = watched.incoming.rename(elsewhere)
    watched.step()
    away.rename(watched.incoming)
    watched.step()
    assert (watched.jobs(), watched.state().existing) == ([], 1)
    watched.put("vip.csv", "ann")
    watched.incoming.rename(elsewhere)

    watched.step()
    state = watched.state()
    away.rename(watched.incoming)
    watched.step()

    assert state.failures == 1
    assert "can't be listed: No such file or directory" in state.problem
    assert (watched.state().failures, watched.state().problem) == (0, "")
    assert watched.published() == ["ann"]


def test_a_reader_that_ends_again_and_again_is_a_problem(watched):
    watched.step()
    watched.put_unread("vip.csv", "ann", steps=3)
    failed = watched.state()
    watched.step()

    assert failed.failures == 3
    assert "does not come forward" in failed.problem
    assert watched.state().failures == 0
    assert watched.published() == ["ann"]


def test_a_paused_job_holds_the_next_file_back_and_an_aborted_one_does_not(watched):
    watched.step()
    watched.put_unread("a.csv", "ann")
    watched.relay.run("pause", watched.job("a.csv").spec.name)
    watched.put("b.csv", "bob")
    watched.step()
    assert watched.jobs() == [("a.csv", "paused")]
    watched.relay.run("abort", watched.job("a.csv").spec.name, "--yes")

    watched.step()

    assert watched.jobs() == [("a.csv", "aborted"), ("b.csv", "read")]
    assert watched.published() == ["bob"]


def test_a_job_is_read_anew_when_triggers_have_changed(watched):
    watched.step()
    watched.put_unread("a.csv", "ann")
    watched.configure(trigger("second"))
    attempt = watched.job("a.csv").spec.attempt

    watched.step()

    job = watched.job("a.csv")
    assert (job.phase, job.spec.attempt, job.tally.accepted) == ("read", attempt + 1, 2)


def test_a_file_that_changed_before_it_was_read_is_not_read_under_its_former_job(watched):
    watched.step()
    watched.put_unread("a.csv", "ann")
    watched.put("a.csv", "ann", "bob")

    for _ in range(2):
        watched.step()

    assert watched.jobs() == [("a.csv", "failed"), ("a.csv", "read")]
    assert "has changed since job" in watched.found_jobs()[0].problem
    assert watched.published() == ["ann", "bob"]


def test_a_watch_that_is_killed_or_stands_still_anywhere_takes_each_file_once(watched, redis_url):
    watched.step()
    watched.put("a.csv", "ann")
    watched.put("b.csv", "bob")

    def do(client):
        for _ in range(3):
            watched.step(client)

    case = Case(do=do, truth=lambda: (watched.jobs(), watched.published()))
    interrupted_anywhere(watched.client, redis_url, case, every=EVERY, times=TIMES)


def test_the_command_and_the_status_tell_of_a_watch(watched):
    watched.put("old.csv", "zoe")
    watched.step()
    watched.put("a.csv", content=b"%PDF-1.7")
    watched.put("b.csv", "ann")
    for _ in range(2):
        watched.step()

    (row,) = watched.relay.document("watch")
    text = watched.relay.run("watch", "drop").stdout.decode()
    status = read_status(watched.client, watched.settings)["watches"]["drop"]
    problems = {one.name: one for one in read_problems(watched.client, watched.settings)}
    wrong = watched.relay.run("watch", "dorp")

    assert (row["name"], row["existing"], row["waiting"]) == ("drop", 1, 1)
    assert "1 file to be taken, 1 left alone at the first look" in text
    assert "a.csv is a PDF." in text
    assert status == {key: row[key] for key in status}
    assert "a.csv is a PDF. Replace or remove it" in problems["watch_refused"].message
    assert wrong.returncode == 2
    assert b"There is no [backfill.watch.dorp]: did you mean 'drop'?" in wrong.stderr


def test_an_interrupted_job_is_no_problem_while_its_watch_goes_on_with_it(watched):
    watched.step()
    watched.put_unread("a.csv", "ann")

    names = {one.name for one in read_problems(watched.client, watched.settings)}
    without = watched.settings.model_copy(update={"backfill": BackfillTables()})
    left = {one.name for one in read_problems(watched.client, without)}

    assert "job_interrupted" not in names
    assert "job_interrupted" in left


def settled(watched, job):
    """Let all that waits of a job have been delivered, in its counts too."""
    for partition in JobStore(watched.client).partitions(watched.settings):
        accepted = watched.client.hget(partition.counts, f"job|{job}|accepted")
        if accepted:
            watched.client.hset(partition.counts, f"job|{job}|delivered", accepted)


def test_jobs_that_are_over_are_forgotten_and_not_taken_again_and_what_waits_is_not(watched):
    watched.jobs_kept = 1
    watched.step()
    for number in range(4):
        watched.put(f"{number}.csv", f"p{number}")
        watched.step()
        if number != 1:
            settled(watched, watched.job(f"{number}.csv").spec.name)
    watched.put("last.csv", "ann")

    for _ in range(3):
        watched.step()

    assert watched.jobs() == [("1.csv", "read"), ("last.csv", "read")]
    assert watched.published() == ["ann", "p1"]
    forgotten = list(watched.client.scan_iter(match="*forgotten*"))
    assert forgotten
    assert all(watched.client.ttl(key) > 86_400 for key in forgotten)


def read(watched, job):
    """Let a process of its own read a job."""
    reader = JobReader(watched.settings, job)
    until(lambda: not reader.is_reading(), 60)
    reader.end()


def test_a_job_that_fails_in_its_reader_is_told(watched):
    watched.step()
    watched.put_unread("a.csv", "ann")
    watched.put("a.csv", "another")

    read(watched, watched.job("a.csv").spec.name)
    read(watched, "gone")

    assert watched.jobs() == [("a.csv", "failed")]


def test_a_reading_is_over_when_its_process_is(watched):
    watched.step()
    watched.put_unread("a.csv", "ann")
    reader = JobReader(watched.settings, watched.job("a.csv").spec.name)

    reader.end()

    assert not reader.is_reading()

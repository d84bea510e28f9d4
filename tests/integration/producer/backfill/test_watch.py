"""A watch of a folder on a real Redis, step by step."""

import gzip
import os
import time
from contextlib import closing
from dataclasses import replace

import pytest

from segrelay.ops.status.health import read_problems
from segrelay.ops.status.problems import ILL
from segrelay.ops.status.status import read_status
from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.backfill.reading import read_job
from segrelay.producer.backfill.watches import Version, WatchStore
from segrelay.producer.sources.opening import look_at_file
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.settings.sections import BackfillTables
from segrelay.worker.errors import LeaseLost
from tests.configuration import trigger
from tests.integration.producer.backfill.watched import Watched
from tests.interruptions import Case, killed_anywhere, standing_anywhere

A_MINUTE_AGO = time.time() - 60


@pytest.fixture
def watched(tmp_path, redis_url):
    with closing(connect(redis_url)) as client:
        yield Watched(tmp_path, redis_url, client)


def test_what_is_there_at_the_first_look_is_left_alone(watched):
    watched.put("old.csv", "ann")

    watched.step()
    watched.put("new.csv", "bob", "cyd")
    watched.step()

    assert watched.jobs() == [("drop-1", "new.csv", "read")]
    assert watched.published() == ["bob", "cyd"]
    assert (watched.state().existing, watched.state().taken) == (1, 1)


def test_what_is_there_is_taken_where_that_is_configured(watched):
    watched.configure(existing="take")
    for name in ("b", "a", "c"):
        watched.put(f"{name}.csv", name)

    watched.step()

    assert [file for _, file, _ in watched.jobs()] == ["a.csv", "b.csv", "c.csv"]
    assert watched.published() == ["a", "b", "c"]


def test_each_version_of_a_file_is_taken_once(watched):
    watched.step()
    watched.put("vip.csv", "ann")
    for _ in range(3):
        watched.step()
    path = watched.put("vip.csv", "ann", "bob")
    os.utime(path, (A_MINUTE_AGO, A_MINUTE_AGO))
    for _ in range(3):
        watched.step()

    assert [job for job, _, _ in watched.jobs()] == ["drop-1", "drop-2"]
    assert watched.published() == ["ann", "ann", "bob"]


def test_a_file_that_grows_is_taken_when_it_has_stood_still(watched):
    watched.configure(settle="200ms", every="1h")
    watched.step()
    path = watched.incoming / "vip.csv"
    with path.open("wb", buffering=0) as file:
        file.write(b"email\nann@example.com\n")
        first = watched.step()
        time.sleep(0.25)
        file.write(b"bob@example.com\n")
        watched.step()
        assert watched.jobs() == []
    assert first.wait_seconds <= 0.2
    time.sleep(0.25)

    watched.step()

    assert watched.published() == ["ann", "bob"]


@pytest.mark.parametrize("name", [".hidden.csv", "_SUCCESS", "vip.csv.part", "vip.csv.tmp"])
def test_hidden_and_unfinished_names_are_passed_over(watched, name):
    watched.step()
    (watched.incoming / name).write_bytes(b"email\nann@example.com\n")

    watched.step()

    assert watched.jobs() == []


def test_a_damaged_file_fails_its_job_and_the_next_one_is_taken(watched):
    watched.step()
    rows = b"email\n" + b"".join(b"p%d@example.com\n" % n for n in range(5_000))
    watched.put("a.csv", content=gzip.compress(rows)[:-2_000])
    watched.put("b.csv", "bob")

    watched.step()

    assert watched.jobs() == [("drop-1", "a.csv", "failed"), ("drop-2", "b.csv", "read")]
    assert "a.csv is damaged" in JobStore(watched.client).named("drop-1").problem
    assert "bob" in watched.published()
    assert len(watched.published()) > 1


def test_a_file_of_which_no_job_can_be_made_is_tried_again_and_stops_nobody(watched):
    watched.step()
    watched.put("a.csv", content=b"%PDF-1.7")
    watched.put("b.csv", "bob")
    for _ in range(2):
        watched.step()
    refused = watched.state().refused
    assert watched.jobs() == [("drop-1", "b.csv", "read")]
    watched.put("a.csv", "ann")

    watched.step()

    assert [(path.rpartition("/")[2], why) for path, (_, why) in refused.items()] == [
        ("a.csv", f"{watched.incoming}/a.csv is a PDF.")
    ]
    assert watched.state().refused == {}
    assert watched.published() == ["ann", "bob"]


def test_a_folder_that_is_away_is_a_problem_until_it_is_back(watched):
    watched.step()
    watched.put("vip.csv", "ann")
    away = watched.incoming.rename(watched.folder / "away")

    watched.step()
    state = watched.state()
    away.rename(watched.incoming)
    watched.step()

    assert state.failures == 1
    assert "can't be listed: No such file or directory" in state.problem
    assert (watched.state().failures, watched.state().problem) == (0, "")
    assert watched.published() == ["ann"]


def test_a_folder_that_is_away_at_first_is_not_taken_for_an_empty_one(watched):
    watched.put("old.csv", "ann")
    away = watched.incoming.rename(watched.folder / "away")
    watched.step()
    away.rename(watched.incoming)

    watched.step()

    assert (watched.jobs(), watched.state().existing) == ([], 1)


def test_what_is_forgotten_is_not_taken_again(watched):
    watched.most_taken = 3
    watched.step()
    for number in range(6):
        path = watched.put(f"{number}.csv", f"p{number}")
        os.utime(path, (A_MINUTE_AGO + number, A_MINUTE_AGO + number))
        watched.step()

    for _ in range(2):
        watched.step()

    assert watched.client.zcard(keys.watch_taken("drop")) == 3
    assert len(watched.jobs()) == 6


def test_what_still_waits_does_not_count_as_forgotten(watched):
    watched.most_taken = 1
    watched.configure(existing="take")
    for number in range(5):
        path = watched.put(f"{number}.csv", f"p{number}")
        os.utime(path, (A_MINUTE_AGO - number, A_MINUTE_AGO - number))

    watched.step()

    assert len(watched.jobs()) == 5
    assert watched.client.zcard(keys.watch_taken("drop")) == 1


def test_of_two_steps_at_once_the_second_does_nothing(watched):
    watched.step()
    watched.put("vip.csv", "ann")
    assert WatchStore(watched.client, "drop").take()

    step = watched.step()

    assert not step.taken
    assert watched.jobs() == []


def test_a_step_that_stood_still_between_looking_and_taking_takes_nothing(watched):
    watched.step()
    path = watched.put("vip.csv", "ann")
    slow = WatchStore(watched.client, "drop")
    state, _ = slow.take()
    (version,) = slow.find_new({str(path): look_at_file(str(path))}, state)
    watched.client.hset(keys.watch("drop"), "until", 1)
    watched.step()

    with pytest.raises(LeaseLost):
        slow.begin_job(replace(state, job="other", spec="{}"), version, [])

    assert watched.jobs() == [("drop-1", "vip.csv", "read")]
    assert watched.state().taken == 1


def test_a_version_that_was_taken_is_refused_by_the_write(watched):
    watched.step()
    path = watched.put("vip.csv", "ann")
    watched.step()
    store = WatchStore(watched.client, "drop")
    state, _ = store.take()
    version = Version.of(str(path), look_at_file(str(path)))

    assert not store.begin_job(replace(state, job="other", spec="{}"), version, [])
    assert watched.state().job == ""


def test_a_job_whose_reader_ended_is_read_on(watched):
    watched.step()
    watched.reads = False
    watched.put("vip.csv", "ann")
    watched.step()
    assert watched.jobs() == [("drop-1", "vip.csv", "reading")]
    watched.reads = True

    watched.step()

    assert watched.jobs() == [("drop-1", "vip.csv", "read")]
    assert watched.published() == ["ann"]


def test_a_reader_that_ends_again_and_again_is_a_problem(watched):
    watched.step()
    watched.reads = False
    watched.put("vip.csv", "ann")
    for _ in range(3):
        watched.step()
        watched.watching().step()
    for _ in range(3):
        watched.change(next_ms=0)
        watched.watching().step()
    failed = watched.state()
    watched.reads = True
    watched.step()
    watched.step()

    assert failed.failures >= 3
    assert "does not come forward" in failed.problem
    assert watched.state().failures == 0
    assert watched.published() == ["ann"]


def test_a_paused_job_holds_the_next_file_back_and_an_aborted_one_does_not(watched):
    watched.step()
    watched.reads = False
    watched.put("a.csv", "ann")
    watched.step()
    watched.relay.run("pause", "drop-1")
    watched.put("b.csv", "bob")
    watched.reads = True
    watched.step()
    assert [job for job, _, _ in watched.jobs()] == ["drop-1"]
    watched.relay.run("abort", "drop-1", "--yes")

    watched.step()

    assert [phase for _, _, phase in watched.jobs()] == ["aborted", "read"]
    assert watched.published() == ["bob"]


def test_a_job_is_read_anew_when_triggers_have_changed(watched):
    watched.step()
    watched.reads = False
    watched.put("a.csv", "ann")
    watched.step()
    config = watched.folder / "segrelay.toml"
    config.write_text(config.read_text() + trigger("second"))
    watched.settings = load_settings(config, environ={})
    watched.reads = True
    attempt = JobStore(watched.client).named("drop-1").spec.attempt

    watched.step()

    job = JobStore(watched.client).named("drop-1")
    assert (job.phase, job.spec.attempt, job.tally.accepted) == ("read", attempt + 1, 2)


def test_a_job_of_the_same_name_is_not_taken_for_that_of_the_file(watched):
    watched.step()
    watched.put("a.csv", "ann")
    other = watched.folder / "other.csv"
    other.write_text("email\nzoe@example.com\n")
    watched.relay.run("start", str(other), "--audience", "vip", "--as-of", "now", "--job", "drop-1")

    watched.step()

    assert [job for job, _, _ in watched.jobs()] == ["drop-1", "drop-2"]
    assert watched.published() == ["ann", "zoe"]


def test_the_audit_tells_of_each_job(watched):
    watched.step()
    watched.put("a.csv", "ann")
    watched.step()

    (act,) = read_acts(watched.client)

    assert (act.what, act.by, act.subject) == ("backfill start", "segrelay", "drop-1")
    assert act.arguments["watch"] == "drop"


def case(watched):
    def do(client):
        for _ in range(3):
            watched.step(client)

    return Case(do=do, truth=lambda: (watched.jobs(), watched.published()))


def test_a_watch_that_is_killed_anywhere_takes_each_file_once(watched, redis_url):
    watched.step()
    watched.put("a.csv", "ann")
    watched.put("b.csv", "bob")

    killed_anywhere(watched.client, redis_url, case(watched))


def test_a_watch_that_stands_still_anywhere_takes_each_file_once(watched, redis_url):
    watched.step()
    watched.put("a.csv", "ann")
    watched.put("b.csv", "bob")

    standing_anywhere(watched.client, redis_url, case(watched), times=12)


def test_of_many_files_that_were_there_the_oldest_are_known_by_their_time(watched):
    watched.most_taken = 2
    for number in range(4):
        path = watched.put(f"{number}.csv", f"p{number}")
        os.utime(path, (A_MINUTE_AGO + number, A_MINUTE_AGO + number))

    for _ in range(2):
        watched.step()
    watched.put("new.csv", "ann")
    watched.step()

    assert [file for _, file, _ in watched.jobs()] == ["new.csv"]
    assert watched.state().existing == 4


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

    assert (row["name"], row["taken"], row["existing"], row["waiting"]) == ("drop", 1, 1, 1)
    assert text.startswith("drop: 1 file taken, 1 to be taken, 1 left alone at the first look\n")
    assert "a.csv is a PDF." in text
    assert status == {key: row[key] for key in status}
    assert "a.csv is a PDF. Replace or remove it" in problems["watch_refused"].message
    assert wrong.returncode == 2
    assert b"There is no [backfill.watch.dorp]: did you mean 'drop'?" in wrong.stderr


def test_a_watch_that_fails_or_does_not_look_is_a_problem(watched):
    watched.step()
    watched.change(failures=3, failing_since_ms=1, problem="The folder is away.")
    fails = {one.name: one for one in read_problems(watched.client, watched.settings)}
    watched.change(failures=0, next_ms=1)
    late = {one.name for one in read_problems(watched.client, watched.settings)}

    assert fails["watch_fails"].severity == ILL
    assert "failed 3 times in a row: The folder is away" in fails["watch_fails"].message
    assert "watch_overdue" in late


def test_an_interrupted_job_is_no_problem_while_its_watch_goes_on_with_it(watched):
    watched.step()
    watched.reads = False
    watched.put("a.csv", "ann")
    watched.step()

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
            watched.client.hset(partition.jobtimes, f"{job}|1|delivered", accepted)


def left_of(watched, job):
    """Return the fields and members that still name a job, but that partitions are closed to it."""
    found = [name for name in watched.client.smembers(keys.JOBS) if name == job.encode()]
    for partition in JobStore(watched.client).partitions(watched.settings):
        for key in (partition.counts, partition.jobs, partition.jobtimes):
            fields = watched.client.hkeys(key)
            found += [one for one in fields if job.encode() in one.split(b"|")]
    return [one for one in found if not one.endswith(b"|epoch")]


def test_jobs_that_are_over_are_forgotten_and_what_waits_is_not(watched):
    watched.jobs_kept = 1
    watched.step()
    for number in range(4):
        watched.put(f"{number}.csv", f"p{number}")
        watched.step()
        if number != 1:
            settled(watched, f"drop-{number + 1}")
    watched.put("last.csv", "ann")

    watched.step()

    assert [job for job, _, _ in watched.jobs()] == ["drop-2", "drop-5"]
    assert left_of(watched, "drop-1") == left_of(watched, "drop-3") == []
    assert left_of(watched, "drop-2")
    assert watched.published() == ["ann", "p1"]


def test_a_reader_of_a_job_that_was_forgotten_publishes_nothing(watched):
    watched.jobs_kept = 1
    watched.step()
    watched.put("a.csv", "ann")
    watched.step()
    settled(watched, "drop-1")
    store = JobStore(watched.client)
    late = store.named("drop-1")
    watched.relay.drained("drop-1")
    watched.put("b.csv", "bob")
    watched.step()
    assert [job for job, _, _ in watched.jobs()] == ["drop-2"]

    watched.client.delete(keys.job_forgotten("drop-1"))
    store.create(late.spec)
    read_job(store, store.named("drop-1"), watched.settings, lambda *_: None)

    assert watched.relay.published("drop-1") == []


def test_failed_jobs_are_kept_apart(watched):
    watched.jobs_kept = 1
    watched.step()
    for number in range(3):
        watched.put(f"{number}.csv", content=b"email\nx@example.com\n\x00")
        watched.step()
        JobStore(watched.client).stop(f"drop-{number + 1}", "paused", [])
        watched.client.hset(keys.job(f"drop-{number + 1}"), "phase", "failed")
        settled(watched, f"drop-{number + 1}")
    watched.put("last.csv", "ann")

    watched.step()

    assert [(job, phase) for job, _, phase in watched.jobs()] == [
        ("drop-3", "failed"), ("drop-4", "read"),
    ]  # fmt: skip

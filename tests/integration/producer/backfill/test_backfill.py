"""Backfills as processes on a real Redis: killed, resumed, paused, aborted, and never wrong."""

import io
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from segrelay.ops import embedded
from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.sources.opening import zstd
from tests.child_processes import children_of, lives, with_descendants
from tests.integration.producer.backfill.backfill_relay import AS_OF, NAMED, Relay, rows
from tests.nightly import amount
from tests.unit.producer.sources.test_cuts import SKIPPABLE
from tests.waiting import allowed, until

PEOPLE = amount(10_000, nightly=30_000)
"""Several blocks of a file."""
CROWD = amount(30_000, nightly=60_000)
"""Enough that a reader is still at work when it is killed."""
KILLS = amount(3, nightly=20)


@pytest.fixture
def people(relay: Relay) -> str:
    return str(relay.people(PEOPLE))


def test_a_backfill_that_is_killed_at_random_moments_loses_and_repeats_nothing(
    relay: Relay,
) -> None:
    rng = random.Random(7)
    source = relay.people(CROWD, pad=1_600)
    source.write_bytes(b'{broken\n{"first_name": "Nobody"}\n' + source.read_bytes() + b"17\n")
    killed_at: list[int] = []

    for kill in range(KILLS):
        relay.limit(2 * CROWD if kill else CROWD // 2)  # the first one can't read all
        reading = relay.start(*(("resume", "j") if kill else ("start", str(source), *NAMED)))
        if kill % 3 == 1:
            time.sleep(rng.uniform(0.2, 1.0))
        else:
            _until_it_has_read_more(relay, than=max(killed_at, default=0))
            time.sleep(rng.uniform(0.0, 0.08))
        publishing = _publishing(reading.pid)
        reading.send_signal(signal.SIGKILL)
        reading.wait()
        _until_over(publishing)
        relay.lapse()
        killed_at.append(relay.document("status", "j")["rows"])
    assert relay.run("resume", "j").returncode == 0

    assert any(0 < rows < CROWD for rows in killed_at)
    found = relay.document("status", "j")
    emails = relay.published("j")
    assert len(emails) == len(set(emails)) == CROWD
    assert (found["rows"], found["accepted"], found["refused"]) == (CROWD + 3, CROWD, 3)


def _until_over(processes: list[int]) -> None:
    until(lambda: not any(map(lives, processes)))


def _until_it_has_read_more(relay: Relay, than: int = 0) -> None:
    with relay.connected() as client:
        store = JobStore(client)
        until(lambda: (j := store.find("j")) and (j.tally.rows > than or j.phase == "read"), 60)


def test_a_backfill_of_which_a_process_was_killed_says_how_it_goes_on(
    relay: Relay, people: str
) -> None:
    relay.limit(1)
    reading = relay.start("start", people, *NAMED, stderr=subprocess.PIPE)
    _until_it_has_read_more(relay)

    os.kill(_publishing(reading.pid)[0], signal.SIGKILL)
    _, told = reading.communicate(timeout=120)

    assert reading.returncode != 0
    assert b"Traceback" not in told
    assert b"`segrelay backfill resume j` goes on exactly where it stopped" in told
    relay.limit(2 * PEOPLE)
    assert relay.run("resume", "j").returncode == 0
    emails = relay.published("j")
    assert len(emails) == len(set(emails)) == PEOPLE


def test_ctrl_c_reaches_none_of_the_processes_that_publish(relay: Relay, people: str) -> None:
    reading = relay.start("start", people, *NAMED)

    while reading.poll() is None:
        for pid in with_descendants(reading.pid)[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        time.sleep(0.01)

    assert reading.returncode == 0
    assert len(relay.published("j")) == PEOPLE


def _publishing(reader: int) -> list[int]:
    """Return the processes that publish: they are forked from one that the reader started."""
    return [pid for started in children_of(reader) for pid in children_of(started)]


def test_what_publishes_ends_with_its_reader_of_which_a_job_has_only_one(
    relay: Relay, people: str
) -> None:
    relay.limit(1)
    reading = relay.start("start", people, *NAMED)  # it waits for room, and nobody makes any
    try:
        _until_it_has_read_more(relay)
        publishing = _publishing(reading.pid)

        ran = relay.run("resume", "j")
    finally:
        reading.kill()
        reading.wait()

    assert (ran.returncode, b"is being read by another process" in ran.stderr) == (1, True)
    assert publishing
    _until_over(publishing)


CUT_ROWS = 6_000


def test_a_job_of_a_file_that_is_cut_off_fails_and_keeps_what_was_read(
    relay: Relay, tmp_path: Path
) -> None:
    """`tests/unit/producer/sources/test_cuts.py` cuts each form anywhere."""
    content = SKIPPABLE + zstd.compress(b"\n".join(rows(CUT_ROWS)))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content[: len(content) * 9 // 10])

    ran = relay.run("start", str(damaged), *NAMED)

    assert (ran.returncode, b"is damaged" in ran.stderr) == (1, True), ran.stderr
    found = relay.document("status", "j")
    emails = relay.published("j")
    assert (found["state"], "is damaged" in found["problem"]) == ("failed", True)
    assert found["accepted"] == len(emails) == len(set(emails))
    assert found["rows"] - found["refused"] == len(emails)
    assert set(emails) == {f"p{n}@example.com" for n in range(len(emails))}
    assert CUT_ROWS // 2 < len(emails) < CUT_ROWS
    damaged.write_bytes(content)
    assert relay.run("start", str(damaged), "--job", "whole", *AS_OF).returncode == 0
    assert len(relay.published("whole")) == CUT_ROWS


def test_a_file_of_which_no_row_can_be_read_leaves_no_job_behind(
    relay: Relay, tmp_path: Path
) -> None:
    out = io.BytesIO()
    write_table(pa.Table.from_pylist([{"email": f"p{n}@example.com"} for n in range(1_000)]), out)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(out.getvalue()[:-1])

    for command in ("start", "plan"):
        named = NAMED if command == "start" else AS_OF
        ran = relay.run(command, str(damaged), *named)

        assert (ran.returncode, b"is damaged" in ran.stderr) == (1, True)
    assert relay.document("status") == []


def test_a_redis_that_was_away_for_a_moment_does_not_end_a_backfill(tmp_path: Path) -> None:
    relay = Relay(tmp_path, "embedded")
    reading = relay.start("start", str(relay.people(CROWD, pad=1_600)), *NAMED)
    _until_it_has_read_more(relay)

    found = embedded.find(relay.data_dir)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    time.sleep(1)  # it does not always say that Redis is away: it may wait for those who publish
    embedded.ensure_running(relay.data_dir, wait_seconds=30)

    assert reading.wait(allowed(60)) == 0
    emails = relay.published("j")
    embedded.stop(relay.data_dir)
    assert len(emails) == len(set(emails)) == CROWD

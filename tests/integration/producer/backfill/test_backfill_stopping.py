"""Readers of a job that was paused or aborted: nothing more of theirs is accepted, ever."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from segrelay.producer.backfill.jobs import JobStore
from tests.child_processes import with_descendants
from tests.integration.producer.backfill.backfill_relay import NAMED, Relay
from tests.nightly import amount
from tests.waiting import allowed, until
from tests.warm import WarmProcess

PEOPLE = amount(12_000, nightly=150_000)
HIGH_WATER = 2_000


@pytest.fixture
def relay(relay: Relay) -> Relay:
    relay.limit(HIGH_WATER)
    return relay


@contextmanager
def waiting_reader(relay: Relay) -> Iterator[WarmProcess]:
    """Start a reader, and yield it once it waits for room."""
    people = str(relay.people(PEOPLE))
    reading = relay.start("start", people, *NAMED, stderr=subprocess.PIPE)
    try:
        until(lambda: len(relay.published("j")) >= HIGH_WATER, 60)
        yield reading
    finally:
        told(reading, signal.SIGCONT)
        reading.kill()
        reading.wait()
        reading.stderr.close()


def told(reading: WarmProcess, number: signal.Signals) -> None:
    """Send a signal to a reader and to all that it has started."""
    for pid in with_descendants(reading.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def phase(relay: Relay) -> str:
    with relay.connected() as client:
        return JobStore(client).phase("j")


def test_an_aborted_job_ends_at_once_while_its_reader_waits_and_is_never_read_again(
    relay: Relay,
) -> None:
    with waiting_reader(relay) as reading:
        refused = relay.run("abort", "j", "--at-most", "1", "--yes")
        assert (refused.returncode, phase(relay)) == (2, "reading")
        assert b"Nothing was done" in refused.stderr
        begun = time.monotonic()

        found = relay.document("abort", "j", "--at-most", str(PEOPLE), "--yes")

        assert time.monotonic() - begun < allowed(5)
        assert found["discarded"] >= HIGH_WATER
        assert reading.wait(120) == 1
        status = relay.document("status", "j")
        assert (status["state"], status["waiting"]) == ("aborted", 0)
        assert status["accepted"] == status["discarded"] < PEOPLE
    assert relay.run("resume", "j").returncode == 2
    assert relay.run("pause", "j").returncode == 2
    assert phase(relay) == "aborted"
    assert relay.document("abort", "j", "--yes")["discarded"] == 0


def test_ctrl_c_ends_a_reader_that_waits_for_room(relay: Relay) -> None:
    with waiting_reader(relay) as reading:
        reading.send_signal(signal.SIGINT)

        reading.wait(120)
        assert relay.document("status", "j")["state"] == "interrupted"


@pytest.mark.parametrize(("command", "after"), [("abort", "aborted"), ("pause", "paused")])
def test_a_reader_that_stood_still_while_its_job_was_stopped_writes_nothing_more(
    command: str, after: str, relay: Relay
) -> None:
    with waiting_reader(relay) as reading:
        told(reading, signal.SIGSTOP)
        assert relay.run(command, "j", *(["--yes"] if command == "abort" else [])).returncode == 0
        relay.drained("j")  # so that there is room for what it has read already

        told(reading, signal.SIGCONT)

        assert reading.wait(120) == 1
        assert (relay.published("j"), phase(relay)) == ([], after)


def test_a_reader_that_stood_still_while_another_read_on_repeats_nothing(relay: Relay) -> None:
    with waiting_reader(relay) as old:
        told(old, signal.SIGSTOP)
        assert relay.run("pause", "j").returncode == 0
        taken = relay.drained("j")
        relay.limit(PEOPLE)
        relay.lapse()
        new = relay.start("resume", "j")
        try:
            until(lambda: len(relay.published("j")) >= HIGH_WATER, 60)
            told(old, signal.SIGCONT)
            assert new.wait(120) == 0
        finally:
            new.kill()
            new.wait()

        _, said = old.communicate(timeout=120)
        assert old.returncode == 1
        assert b"read by another process" in said or b"taken over" in said
        assert taken + relay.drained("j") == PEOPLE
        found = relay.document("status", "j")
        assert (found["rows"], found["accepted"]) == (PEOPLE, PEOPLE)

"""Backfills as processes on a real Redis: killed, resumed, paused, aborted, and never wrong."""

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ops.embedded import lifecycle as embedded
from tests.integration.producer.backfill_relay import Relay

AS_OF = ("--audience", "vip", "--as-of", "2026-11-20T06:00:00Z")
PEOPLE = 30_000


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    built = Relay(tmp_path)
    embedded.ensure_running(built.data_dir)
    yield built
    embedded.stop(built.data_dir)


@pytest.fixture
def people(tmp_path: Path) -> str:
    """Return a file with 30,000 people and three rows that can't be placed."""
    rows = [orjson.dumps({"email": f"p{n}@example.com", "pad": "x" * 500}) for n in range(PEOPLE)]
    rows.insert(100, b"{broken")
    rows.insert(20_000, b'{"first_name": "Nobody"}')
    rows.append(b"17")
    path = tmp_path / "people.ndjson"
    path.write_bytes(b"\n".join(rows) + b"\n")
    return str(path)


def test_a_backfill_that_is_killed_at_random_moments_loses_and_repeats_nothing(
    relay: Relay, people: str
) -> None:
    rng = random.Random(7)
    running = relay.start("start", people, "--name", "j", *AS_OF)
    relay.until(lambda: bool(relay.document("list")))
    for _ in range(6):
        time.sleep(rng.uniform(0.8, 2.5))
        running.send_signal(signal.SIGKILL)
        running.wait()
        if relay.document("status", "j")["state"] not in {"interrupted", "reading"}:
            break
        _until_its_claim_has_ended(relay)
        running = relay.start("resume", "j")
    running.wait(120)
    if relay.document("status", "j")["state"] == "interrupted":
        _until_its_claim_has_ended(relay)
        assert relay.run("resume", "j").returncode == 0

    found = relay.document("status", "j")
    emails = relay.published("j")
    assert len(emails) == len(set(emails)) == PEOPLE
    assert (found["rows"], found["accepted"], found["refused"]) == (PEOPLE + 3, PEOPLE, 3)


def _until_its_claim_has_ended(relay: Relay) -> None:
    gives_up_at = time.monotonic() + 40
    while relay.document("status", "j")["state"] == "reading":
        assert time.monotonic() < gives_up_at, "the claim of a killed reader does not end"
        time.sleep(0.5)


def test_a_canary_publishes_its_rows_and_waits_for_a_word(relay: Relay, people: str) -> None:
    starting = relay.start("start", people, "--name", "j", "--canary", "50", *AS_OF)
    try:
        _until_waiting(relay, "j")
        assert len(relay.published("j")) == 50
    finally:
        starting.kill()
        starting.wait()

    assert _resumed(relay).returncode == 0
    assert len(relay.published("j")) == PEOPLE


def _resumed(relay: Relay) -> subprocess.CompletedProcess[bytes]:
    """Resume the job once the claim of a reader that was killed has ended."""
    gives_up_at = time.monotonic() + 40
    while b"is being read by another process" in (ran := relay.run("resume", "j")).stderr:
        assert time.monotonic() < gives_up_at, "the claim of a killed reader does not end"
        time.sleep(1)
    return ran


def _until_waiting(relay: Relay, job: str) -> None:
    gives_up_at = time.monotonic() + 60
    while b'"state": "canary under way"' not in relay.run("status", job, "--json").stdout:
        assert time.monotonic() < gives_up_at, "the canary was not published in time"
        time.sleep(0.2)


def test_aborting_removes_what_waits_and_counts_it(relay: Relay, people: str) -> None:
    assert relay.run("start", people, "--name", "j", *AS_OF).returncode == 0

    assert relay.document("abort", "j", "--yes") == {"job": "j", "discarded": PEOPLE}
    found = relay.document("status", "j")
    assert (found["state"], found["discarded"], found["waiting"]) == ("aborted", PEOPLE, 0)


def test_a_report_names_bad_rows_and_writes_them_to_be_mended(relay: Relay, people: str) -> None:
    assert relay.run("start", people, "--name", "j", *AS_OF).returncode == 0
    bad, page = relay.folder / "bad.ndjson", relay.folder / "report.html"

    found = relay.document("report", "j", "--html", str(page), "--bad-rows", str(bad))

    assert (found["rows"], found["refused"]) == (PEOPLE + 3, 3)
    assert found["refused_by_reason"] == {"unreadable": 2, "no_identity": 1}
    named = [(row["file"], row["line"], row["reason"]) for row in found["bad_rows"]]
    assert sorted(named) == [
        (people, 101, "unreadable"),
        (people, 20_001, "no_identity"),
        (people, PEOPLE + 3, "unreadable"),
    ]
    assert sorted(bad.read_text().splitlines()) == ["17", '{"first_name": "Nobody"}', "{broken"]
    assert "<title>Backfill j</title>" in page.read_text()
    assert "p1@example.com" not in page.read_text()
    mended = relay.folder / "mended.ndjson"
    mended.write_text(bad.read_text().replace("{broken", '{"email": "mended@example.com"}'))
    again = relay.document("start", str(mended), "--name", "j2", *AS_OF)
    assert (again["accepted"], again["refused"]) == (1, 2)


def test_a_changed_file_is_refused(relay: Relay, people: str) -> None:
    starting = relay.start("start", people, "--name", "j", "--canary", "5", *AS_OF)
    _until_waiting(relay, "j")
    starting.kill()
    starting.wait()
    with Path(people).open("ab") as file:
        file.write(b'{"email": "late@example.com"}\n')

    ran = _resumed(relay)

    assert ran.returncode == 2
    assert b"has changed since job 'j' began" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing.csv", "--audience", "vip", "--as-of", "now"), b"there is no such file"),
        (("PEOPLE", "--audience", "vip"), b"--as-of"),
        (("PEOPLE", "--audience", "vip", "--as-of", "yesterday"), b"2026-11-25T06:00:00Z"),
        (("PEOPLE", "--audience", "vipp", "--as-of", "now"), b"No trigger wants"),
        (("PEOPLE", "--audience", "vip", "--as-of", "now", "--trigger", "x"), b"no trigger 'x'"),
        (("PEOPLE", "--audience", "vip", "--as-of", "now", "--name", "A B"), b"a to z"),
    ],
)
def test_what_can_not_be_started_is_told(
    relay: Relay, people: str, arguments: tuple[str, ...], told: bytes
) -> None:
    ran = relay.run("start", *(people if each == "PEOPLE" else each for each in arguments))

    assert ran.returncode == 2
    assert told in ran.stderr
    assert b"Traceback" not in ran.stderr

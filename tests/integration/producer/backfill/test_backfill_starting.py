"""Starting a backfill: what is refused at once, where rows have their time, changed files."""

import subprocess
from pathlib import Path

import pytest

from segrelay.producer.backfill.jobs import JobStore
from tests.integration.producer.backfill.backfill_relay import NAMED, Relay
from tests.waiting import until

PEOPLE = 12_000


@pytest.fixture
def people(relay: Relay) -> Path:
    return relay.people(PEOPLE)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing.csv", "--audience", "vip", "--as-of", "now"), b"there is no such file"),
        (("PEOPLE", "--audience", "vip"), b"--as-of"),
        (("PEOPLE", "--audience", "vip", "--as-of", "yesterday"), b"2026-11-25T06:00:00Z"),
        (("PEOPLE", "--audience", "vipp", "--as-of", "now"), b"No trigger wants"),
        (("PEOPLE", "--audience", "vip", "--as-of", "now", "--trigger", "x"), b"no trigger 'x'"),
        (("PEOPLE", "--audience", "vip", "--as-of", "now", "--job", "A B"), b"a to z"),
        (("PEOPLE", "--audience", "vip", "--as-of", "2099-01-01T00:00:00Z"), b"in the future"),
        (
            ("PEOPLE", "--audience", "vip", "--as-of", "2001-01-01T00:00:00Z"),
            b"--older-than-ledger",
        ),
        (("PEOPLE", "--audience", "vip", "--as-of", "name"), b"holds no time"),
        (("PEOPLE", "--audience", "vip", "--as-of", "column:"), b"column:NAME"),
        (("PEOPLE",), b"--audience SLUG --as-of TIME"),
    ],
)
def test_what_can_not_be_started_is_told(
    relay: Relay, people: Path, arguments: tuple[str, ...], told: bytes
) -> None:
    given = (str(people) if each == "PEOPLE" else each for each in arguments)

    ran = relay.run("start", *given)

    assert ran.returncode == 2
    assert told in b" ".join(ran.stderr.split())
    assert b"Traceback" not in ran.stderr
    with relay.connected() as client:
        assert JobStore(client).names() == []


def test_rows_of_a_pipe_that_tell_no_audience_end_the_job_before_any_is_kept(relay: Relay) -> None:
    ran = relay.run("start", "-", "--job", "j", given=b'{"email": "ann@example.com"}\n' * 5)

    assert ran.returncode == 2
    assert b"--audience SLUG --as-of TIME" in ran.stderr
    found = relay.document("status", "j")
    assert (found["state"], found["rows"], found["refused"]) == ("failed", 0, 0)


def test_the_time_of_rows_comes_from_the_name_of_their_file(relay: Relay, people: Path) -> None:
    for name, at in (
        ("vip-2026-11-20.ndjson", "2026-11-20T00:00:00Z"),
        ("vip_20261120T061530Z.ndjson", "2026-11-20T06:15:30Z"),
        ("vip 2026-11-20 06-15.ndjson", "2026-11-20T06:15:00Z"),
    ):
        people = people.rename(relay.folder / name)
        found = relay.document("plan", str(people), "--audience", "vip", "--as-of", "name")

        assert found["as_of"] == at


def test_each_row_may_tell_its_own_time(relay: Relay) -> None:
    table = relay.folder / "people.csv"
    table.write_text(
        "email,changed\nann@example.com,2026-11-20T06:00:00Z\nben@example.com,yesterday\n"
        "eva@example.com,2026-11-21T07:00:00+01:00\n"
    )

    found = relay.document(
        "start", str(table), "--job", "j", "--audience", "vip", "--as-of", "column:changed"
    )

    assert (found["accepted"], found["refused"]) == (2, 1)
    assert found["as_of"] == "column:changed"
    assert relay.times("j") == {
        "ann@example.com": "2026-11-20T06:00:00Z",
        "eva@example.com": "2026-11-21T07:00:00+01:00",
    }


def test_a_file_that_is_rewritten_while_it_is_read_fails_its_job(
    relay: Relay, people: Path
) -> None:
    relay.limit(1_000)
    reading = relay.start("start", str(people), *NAMED, stderr=subprocess.PIPE)
    until(lambda: relay.published("j"), 60)
    content = people.read_bytes()

    with people.open("r+b") as file:  # in place, as `cat new > people` does
        file.write(content.replace(b"p1@", b"p2@"))
    until(lambda: relay.drained("j") is None or reading.poll() is not None, 120)

    assert reading.returncode == 1
    assert b"was written to while it was read" in b" ".join(reading.communicate()[1].split())
    found = relay.document("status", "j")
    assert found["state"] == "failed"
    assert "was written to while it was read" in found["problem"]
    assert found["rows"] < PEOPLE
    assert relay.run("resume", "j").returncode == 2


def test_rows_older_than_the_ledger_are_brought_in_if_a_person_insists(relay: Relay) -> None:
    source = ("start", str(relay.people(20)), "--audience", "vip", "--as-of")
    found = relay.document(*source, "2001-01-01T00:00:00Z", "--older-than-ledger")

    assert found["accepted"] == 20

"""Backfills on the whole system: beside live work, paused, killed, and never wrong."""

from datetime import UTC, datetime, timedelta

import orjson

from segrelay.sandbox.people import Happening
from tests.journeys.play import (
    Rig,
    invent,
    lines,
    nothing_is_wrong,
    run,
    send,
    start_worker,
    status_of,
    watched,
)
from tests.nightly import amount
from tests.waiting import until

LATENCY = {"latency_seconds": 0.02}
AS_OF = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=12)


def write_rows(path, emails):
    """Write a profile a line; returns the path as a command takes it."""
    rows = (orjson.dumps({"email": email, "first_name": "Ann"}) for email in emails)
    path.write_bytes(b"\n".join(rows) + b"\n")
    return str(path)


def backfill(rig, *arguments):
    """Run `segrelay backfill`; returns its document."""
    return orjson.loads(run(rig, "backfill", *arguments, "--json"))


def start(rig, path, audience, *options):
    return backfill(rig, "start", path, *as_of(audience), *options)


def as_of(audience):
    return ("--audience", audience, "--as-of", AS_OF.isoformat())


def rows_as_happenings(emails, audience, *, is_exit=False):
    time_us = int(AS_OF.timestamp()) * 1_000_000
    return [Happening(email, audience, is_exit, time_us) for email in emails]


def test_a_paused_job_is_not_delivered_and_everything_beside_it_is(tmp_path):
    happened, sent = invent(amount(600, nightly=2_000), 300, seed=21)
    emails = [
        f"person{number}@example.com" for number in range(5_000, amount(5_750, nightly=6_500))
    ]
    with Rig(tmp_path, sandbox_settings=LATENCY) as rig, watched(rig):
        start(rig, write_rows(tmp_path / "rows.ndjson", emails), "vip", "--job", "load")
        run(rig, "backfill", "pause", "load")
        start_worker(rig)
        send(rig, lines(sent))
        until(lambda: status_of(rig)["waiting"] <= len(emails), 40)

        status = status_of(rig)
        assert status["jobs"]["load"]["waiting"] == len(emails)
        assert status["jobs"]["load"]["state"] == "paused"
        assert backfill(rig, "status", "load")["state"] == "paused"
        nobody = rig.sandbox.get("summary")["requests"]["total"]
        assert backfill(rig, "resume", "load", "--wait")["delivered"] == len(emails)
        assert rig.sandbox.get("summary")["requests"]["total"] > nobody
        plan = backfill(rig, "plan", str(tmp_path / "rows.ndjson"), *as_of("vip"))
        assert plan["triggers"]["enter"]["known"] == {"duplicate": len(emails)}
        assert (plan["known"], plan["requests"]) == (len(emails), 0)
        nothing_is_wrong(rig, happened + rows_as_happenings(emails, "vip"))


def test_a_canary_is_delivered_and_waits_for_a_word(tmp_path):
    emails = [f"person{number}@example.com" for number in range(1_000)]
    with Rig(tmp_path) as rig:
        start_worker(rig)
        path = write_rows(tmp_path / "rows.ndjson", emails)

        canary = start(rig, path, "vip", "--canary", "20", "--job", "j")

        assert (canary["state"], canary["delivered"], canary["rows"]) == ("at its canary", 20, 20)
        assert canary["canary_passed"]
        assert len(rig.memberships()) == 20
        read_back = rig.command("verify", "--older-than", "0s", "--json")
        assert (read_back.returncode, orjson.loads(read_back.stdout)["profiles"]) == (0, 20)
        whole = backfill(rig, "resume", "j", "--wait")
        assert (whole["state"], whole["delivered"]) == ("done", len(emails))
        assert len(rig.memberships()) == len(emails)

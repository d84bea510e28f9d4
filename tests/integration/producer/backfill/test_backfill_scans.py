"""Backfills of a scan of Lytics, and of standard input: what can't be read twice starts again."""

import subprocess
from pathlib import Path

import pytest

from segrelay.sandbox.lytics.account import audience_id
from segrelay.worker.contract import keys
from tests.configuration import lytics
from tests.integration.producer.backfill.backfill_relay import NAMED, Relay, rows
from tests.integration.producer.sync_world import person
from tests.rig import SandboxProcess
from tests.waiting import until

MEMBERS = 1_250


@pytest.fixture
def relay(tmp_path: Path, sandbox: SandboxProcess, redis_url: str) -> Relay:
    sandbox.post("lytics/profiles", [person(n, "vip") for n in range(MEMBERS)])
    return Relay(tmp_path, redis_url, lytics(sandbox.url))


def test_a_scan_brings_in_all_members_at_the_time_of_lytics_clock(relay, sandbox) -> None:
    sandbox.settings(lytics={"date_offset_seconds": -120.0})

    found = relay.document("start", "lytics:vip")

    assert (found["job"], found["rows"], found["accepted"]) == ("vip", MEMBERS, MEMBERS)
    assert found["audience"] == "vip"
    assert found["as_of"] < found["started_at"]
    assert sorted(relay.published("vip")) == sorted(f"p{n}@example.com" for n in range(MEMBERS))


def test_a_scan_that_names_an_id_is_of_the_audience_that_a_person_told(relay) -> None:
    scanned = audience_id("vip")
    refused = relay.run("start", f"lytics:{scanned}")
    with relay.connected() as client:
        client.hset(keys.AUDIENCES, scanned, "vip")

    found = relay.document("start", f"lytics:{scanned}")

    assert b"segrelay audience set" in refused.stderr
    assert (found["job"], found["audience"], found["accepted"]) == ("vip", "vip", MEMBERS)
    plan = relay.document("plan", "lytics:vip")
    assert plan["triggers"]["vip-enter"]["deliveries"] == MEMBERS


def test_a_scan_with_a_wrong_clock_or_of_nobody_is_refused_before_there_is_a_job(
    relay, sandbox
) -> None:
    sandbox.settings(lytics={"date_offset_seconds": 3_600.0})

    wrong = relay.run("start", "lytics:vip")
    nobody = relay.run("start", "lytics:nobody", "--audience", "vip")

    assert (wrong.returncode, nobody.returncode) == (1, 2)
    assert b"ahead of Redis' clock" in wrong.stderr
    assert b"/api/segment/nobody/scan" in nobody.stderr
    assert relay.document("status") == []


def test_a_scan_that_expired_starts_again_when_it_is_resumed(relay, sandbox) -> None:
    sandbox.settings(lytics={"page_token_seconds": 0.000001})
    expired = relay.run("start", "lytics:vip")
    sandbox.settings(lytics={"page_token_seconds": 300.0})

    assert expired.returncode == 1
    assert b"`segrelay backfill resume` scans again" in expired.stderr
    found = relay.document("resume", "vip")
    assert (found["rows"], found["accepted"]) == (MEMBERS, MEMBERS)


def test_standard_input_is_read_from_its_beginning_when_a_job_goes_on(relay) -> None:
    people = rows(6_000, pad=990)
    begun = relay.start("start", "-", *NAMED, stdin=subprocess.PIPE)
    begun.stdin.write(b"\n".join(people[:4_000]) + b"\n")
    begun.stdin.flush()
    until(lambda: len(relay.published("j")) >= 2_000, 60)
    begun.kill()
    begun.wait()
    begun.stdin.close()
    relay.lapse()

    found = relay.document("resume", "j", given=b"\n".join(people))

    assert found["rows"] == len(people)
    assert set(relay.published("j")) == {f"p{n}@example.com" for n in range(len(people))}

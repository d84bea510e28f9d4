"""Syncs and response streams in real workers: scheduled by the sweep, done by Celery tasks."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import monotonic

import orjson
import pytest

from segrelay.ops.demo.rig import kill_group
from segrelay.producer.sync.store import SyncStore
from tests.journeys.play import SHORT, Rig, publish, start_worker
from tests.nightly import amount
from tests.waiting import until

REPETITIONS = amount(1, nightly=3)
SCAN_SECONDS = 4.0
"""The seconds after which an event is older than a scan that begins then."""
SYNC = """
[lytics]
base_url = "SANDBOX"
token = "a-token-of-nobody"
[sync.vips]
audience = "vip"
every = "1s"
[triggers.told]
destination = "insider"
audiences = ["vip"]
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"
response_stream = "answers"
"""


def people(numbers):
    return [
        {"_uid": f"u{n:05}", "email": f"p{n}@example.com", "segments": ["vip"]} for n in numbers
    ]


def moves(numbers, change):
    return [{"uid": f"u{n:05}", "audience": "vip", "change": change} for n in numbers]


def answers(rig):
    return rig.sandbox.get("lytics/collect")["records"].get("answers", [])


def test_a_sync_keeps_insider_true_in_the_background(tmp_path):
    with Rig(tmp_path, delivery_lines=SHORT, more=SYNC) as rig:
        rig.sandbox.post("lytics/profiles", people(range(1_500)))
        workers = [start_worker(rig), start_worker(rig)]

        until(lambda: len(rig.memberships()) == 1_500, 60)
        rig.sandbox.post("lytics/moves", moves(range(40), "exit"))
        rig.sandbox.post("lytics/profiles", people(range(2_000, 2_050)))
        until(lambda: len(rig.memberships()) == 1_510, 60)
        until(lambda: not rig.waiting(), 20)

        assert set(rig.memberships()) == {
            f"p{n}@example.com" for n in [*range(40, 1_500), *range(2_000, 2_050)]
        }
        assert rig.counts().get("dead|enter", 0) == 0
        told = until(lambda: answers(rig) if len(answers(rig)) >= 1_550 else None, 20)
        assert {record["response"]["outcome"] for record in told} == {"delivered"}
        assert "sync.ended" in "".join(rig.worker_log(n).read_text() for n in range(len(workers)))


def test_a_changed_address_is_out_and_the_new_one_in_with_the_next_run(tmp_path):
    with Rig(tmp_path, delivery_lines=SHORT, more=SYNC) as rig:
        rig.sandbox.post("lytics/profiles", people(range(20)))
        start_worker(rig)
        until(lambda: len(rig.memberships()) == 20, 60)

        moved = {"_uid": "u00003", "email": "changed@example.com", "segments": ["vip"]}
        rig.sandbox.post("lytics/profiles", [moved])

        everybody = {f"p{n}@example.com" for n in range(20)}
        wanted = (everybody - {"p3@example.com"}) | {"changed@example.com"}
        until(lambda: set(rig.memberships()) == wanted, 60)


def leave(rig, numbers):
    """Let people leave at Lytics, whose webhook tells of it."""
    rig.sandbox.post("lytics/moves", moves(numbers, "exit"))
    now = datetime.now(UTC).isoformat()
    events = [{"slug": "vip", "event": "exit", "exit": now}]
    told = [{"email": f"p{n}@example.com", "segment_events": events} for n in numbers]
    publish(rig, b"\n".join(map(orjson.dumps, told)))


@pytest.mark.nightly
def test_who_leaves_while_lytics_makes_its_first_page_is_out(tmp_path):
    hourly = SYNC.replace('"1s"', '"1h"')
    with Rig(tmp_path, delivery_lines=SHORT, more=hourly) as rig, ThreadPoolExecutor() as pool:
        rig.sandbox.post("lytics/profiles", people(range(20)))
        start_worker(rig)
        until(lambda: SyncStore(rig.client, "vips", rig.settings.redis).peek().last, 60)
        rig.sandbox.settings(lytics={"answer_seconds": 3.0})
        for first in range(100, 100 + 100 * REPETITIONS, 100):
            rig.sandbox.post("lytics/profiles", people(range(first, first + 20)))
            before = rig.sandbox.get("lytics/summary")["pages"]
            run = pool.submit(rig.command, "sync", "run", "vips")
            until(lambda pages=before: rig.sandbox.get("lytics/summary")["pages"] > pages, 30)

            leave(rig, range(first, first + 10))
            assert run.result().returncode == 0
            until(lambda: not rig.waiting(), 30)

            members = rig.sandbox.get("lytics/members", audience="vip")
            assert set(rig.memberships()) == {row["email"] for row in members}, first


def webhook(rig, numbers, change):
    """Let the webhook tell of entrances or exits, of which Lytics knows nothing any more."""
    now = datetime.now(UTC).isoformat()
    events = [{"slug": "vip", "event": change, change: now}]
    told = [{"email": f"p{n}@example.com", "segment_events": events} for n in numbers]
    publish(rig, b"\n".join(map(orjson.dumps, told)))


def emails(numbers):
    return {f"p{n}@example.com" for n in numbers}


ONE_WAY = """
[triggers.second-enter]
destination = "insider"
audiences = ["vip"]
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"
[destinations.leavers]
api = "insider"
base_url = "SANDBOX"
authorization = "insider"
rate = "25000/min"
[triggers.leavers]
destination = "leavers"
audiences = ["vip"]
on = "exit"
template = "insider/exit.jsonnet"
url = "/api/user/v1/attribute/delete"
"""


def test_members_whose_webhook_got_lost_are_repaired_by_the_next_run(tmp_path):
    hourly = SYNC.replace('"1s"', '"1h"') + ONE_WAY
    with Rig(tmp_path, delivery_lines=SHORT, more=hourly) as rig:
        rig.sandbox.post("lytics/profiles", people(range(100)))
        worker = start_worker(rig)
        until(lambda: len(rig.memberships()) == 100, 60)
        webhook(rig, range(10), "exit")
        webhook(rig, range(200, 210), "enter")
        until(lambda: set(rig.memberships()) == emails([*range(10, 100), *range(200, 210)]), 60)
        until(lambda: not rig.waiting(), 60)
        begun = monotonic()
        until(lambda: monotonic() - begun > SCAN_SECONDS, 20)

        first = rig.command("sync", "run", "vips")
        kill_group(worker)
        start_worker(rig)
        second = rig.command("sync", "run", "vips")
        until(lambda: not rig.waiting(), 60)
        told = rig.command("sync", "run", "vips", "--dry-run", "--json")

        assert b"0 entered, 0 left, 20 repaired" in first.stdout, first
        assert b"0 entered, 0 left\n" in second.stdout, second
        assert set(rig.memberships()) == emails(range(100))
        assert told.returncode == 0, told
        assert {
            (each["destination"], each["entrances"], each["exits"])
            for each in orjson.loads(told.stdout)["destinations"]
        } == {("insider", 0, 0), ("leavers", 0, 0)}

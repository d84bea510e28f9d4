"""A Redis that a released version left in the midst of its work is taken over, and all of it done.

What a newer version wrote is refused with a sentence, and kept.
"""

import re
from pathlib import Path

import httpx
import orjson
import pytest

from segrelay.sandbox.people import Happening
from segrelay.worker.contract import keys
from segrelay.worker.contract.ledger import RECORD_FORMAT
from tests.journeys.play import SHORT, Rig, invent, lines, nothing_is_wrong, send, start_worker
from tests.journeys.play import status_of as status
from tests.releases.redis_copy import load_copy
from tests.waiting import until

RELEASES = sorted((Path(__file__).parents[2] / "releases").glob("*.json.gz"))
WRITTEN_BY_ANOTHER = (
    r"has format 2, and this version of segrelay knows 1: (another|a newer) version"
)
ATTRIBUTE = "lytics_computed_attr"


def hold_again(rig, held):
    """Have the sandbox hold what Insider held when the copy was made."""
    users = [
        {"identifiers": {"email": email}, "attributes": {"custom": {ATTRIBUTE: audiences}}}
        for email, audiences in held.items()
    ]
    headers = {"X-PARTNER-NAME": "acme", "X-REQUEST-TOKEN": "demo"}
    url = f"{rig.sandbox.url}/api/user/v1/upsert"
    assert httpx.post(url, json={"users": users}, headers=headers).status_code == 200
    assert rig.memberships() == {email: sorted(audiences) for email, audiences in held.items()}


def command(rig, *words):
    done = rig.command(*words)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_work_that_a_released_version_left_is_delivered(tmp_path, release):
    with Rig(
        tmp_path,
        redis_lines="partitions = 4",
        delivery_lines=SHORT,
        audiences=("vip", "newsletter", "cart-abandoners", "new"),
    ) as rig:
        told = load_copy(rig.client, release)
        happened = [Happening(*one) for one in told["happened"]]
        hold_again(rig, told["held"])
        looked = rig.command("status")
        assert looked.returncode == 1
        assert b"An earlier version of segrelay wrote this Redis" in looked.stderr

        start_worker(rig)
        assert min(status(rig)["waiting"], status(rig)["dead"]) > 0
        assert rig.client.get("segrelay:format") == b"2"  # the earlier version refuses it
        assert list(rig.client.scan_iter(match="segrelay:*")) == [b"segrelay:format"]
        command(rig, "resume", "exit-event")
        command(rig, "backfill", "resume", "joined")
        command(rig, "dlq", "replay", "--all", "--yes")
        command(rig, "quarantine", "replay", "--reason", "no_trigger", "--force")
        rig.wait_until_empty(60)

        after = nothing_is_wrong(rig, happened)
        assert after["accepted"] == after["delivered"] + after["skipped"]
        assert after["quarantined"] == 0


def test_nothing_is_taken_over_while_a_worker_of_the_earlier_version_runs(rig):
    seconds, _ = rig.client.time()
    rig.client.set("segrelay:format", "1")
    rig.client.zadd("segrelay:processes", {"{}": seconds * 1_000})

    done = rig.command("worker")

    assert done.returncode == 1
    assert "1 workers of an earlier version run" in done.stderr.decode()
    assert rig.client.get("segrelay:format") == b"1"


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("segrelay:names", "{segrelay}:names"),
        ("segrelay:progress:lock", "{segrelay}:progress:lock"),
        ("segrelay:jobs", "{segrelay}:jobs"),
        ("segrelay:job:load", keys.job("load")),
        ("segrelay:job:load:bad", keys.job_bad_rows("load")),
        ("segrelay:sync:vips", keys.sync("vips")),
        ("segrelay:sync:vips:bell", keys.wakeup(keys.sync("vips"))),
        ("segrelay:responses:insider", keys.responses("insider")),
    ],
)
def test_each_key_of_the_earlier_version_has_a_present_name(former, present):
    assert keys.present_name(former) == present


@pytest.fixture
def rig(tmp_path):
    with Rig(tmp_path, redis_lines="partitions = 2", delivery_lines=SHORT) as rig:
        yield rig


@pytest.mark.parametrize("words", [("status",), ("send", "-"), ("dlq", "list"), ("worker",)])
def test_a_redis_of_a_newer_version_is_refused_and_left_as_it_is(rig, words):
    rig.client.set(keys.FORMAT, "3")
    before = {key: rig.client.dump(key) for key in rig.client.keys("*")}

    done = rig.command(*words)

    assert done.returncode == 1
    said = done.stderr.decode()
    assert "Redis holds format 3, this segrelay knows 2. Use the version that wrote it" in said
    assert {key: rig.client.dump(key) for key in rig.client.keys("*")} == before


def newer_entry(rig):
    """Turn what waits into entries of a format to come."""
    for place in rig.partitions():
        for name in rig.client.smembers(place.streams):
            key = place.stream(name.decode())
            for entry, fields in rig.client.xrange(key):
                header = orjson.loads(fields[b"h"])
                header[0] += 1
                rig.client.xdel(key, entry)
                newer = {**fields, b"h": orjson.dumps(header)}
                ms, _, number = entry.decode().partition("-")
                rig.client.xadd(key, newer, id=f"{ms}-{int(number) + 1_000}")


def newer_ledger(rig):
    """Turn the ledgers of those who are known into records of a format to come."""
    for place in rig.partitions():
        ledgers = rig.client.scan_iter(match=f"{place.tag}l*", _type="string")
        for key in ledgers:
            rig.client.setrange(key, 0, bytes([RECORD_FORMAT + 1]))


@pytest.mark.parametrize("change", [newer_entry, newer_ledger])
def test_what_a_newer_version_wrote_pauses_its_trigger_and_nothing_is_lost(rig, change):
    happened, _ = invent(60, 5)
    worker = start_worker(rig)
    send(rig, lines(happened[:30]))
    rig.wait_until_empty(30)
    worker.terminate()
    worker.wait(120)
    send(rig, lines(happened[30:]))
    before = status(rig)
    change(rig)

    start_worker(rig)
    rigs = ("enter", "exit", "exit-event")
    until(lambda: all(status(rig)["triggers"][t]["state"] == "paused" for t in rigs), 30)

    after = status(rig)
    assert (after["waiting"], after["dead"]) == (before["waiting"], 0)
    for trigger in rigs:
        assert re.search(WRITTEN_BY_ANOTHER, after["triggers"][trigger]["reason"])

"""A backup is restored, and what came after it is brought back: nobody is wrong."""

import shutil
from datetime import UTC, datetime

import orjson
import pytest

from tests.journeys.play import (
    SHORT,
    Rig,
    invent,
    lines,
    nothing_is_wrong,
    publish,
    send,
    start_worker,
    status_of,
)
from tests.waiting import until

SYNC = """
[lytics]
base_url = "SANDBOX"
token = "a-token-of-nobody"
[sync.vips]
audience = "vip"
every = "1s"
"""


def copy(rig):
    """Copy the folder of Redis while nothing runs."""
    rig.stop_workers()
    run(rig, "redis", "stop")
    shutil.copytree(rig.settings.redis.data_dir, rig.folder / "copy")
    rig.start_redis()
    start_worker(rig)


def restore(rig):
    rig.stop_workers()
    run(rig, "redis", "stop")
    shutil.rmtree(rig.settings.redis.data_dir)
    shutil.copytree(rig.folder / "copy", rig.settings.redis.data_dir)
    rig.start_redis()


def run(rig, *words):
    done = rig.command(*words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)


def test_after_a_restore_the_events_of_the_hour_put_everything_right(tmp_path):
    happened, sent = invent(600, 120, seed=5)
    with Rig(tmp_path, delivery_lines=SHORT) as rig:
        start_worker(rig)
        send(rig, lines(sent[:200]))
        rig.wait_until_empty(60)
        run(rig, "pause", "enter", "--reason", "some wait while the copy is made")
        send(rig, lines(sent[200:400]))
        copy(rig)
        run(rig, "resume", "enter")
        send(rig, lines(sent[400:]))
        rig.wait_until_empty(60)
        nothing_is_wrong(rig, happened)

        restore(rig)
        assert status_of(rig)["waiting"] > 0
        start_worker(rig)
        run(rig, "resume", "enter")
        send(rig, lines(sent[400:]))
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)


def person(number):
    return {"_uid": f"u{number}", "email": f"p{number}@example.com", "segments": ["vip"]}


def move(rig, numbers, change):
    """Let people leave or enter at Lytics, whose webhook tells of it."""
    now = datetime.now(UTC).isoformat()
    moves = [{"uid": f"u{n}", "audience": "vip", "change": change} for n in numbers]
    rig.sandbox.post("lytics/moves", moves)
    told = [
        {
            "email": f"p{n}@example.com",
            "segment_events": [{"slug": "vip", "event": change, change: now}],
        }
        for n in numbers
    ]
    publish(rig, b"\n".join(map(orjson.dumps, told)))


def is_true(rig):
    members = rig.sandbox.get("lytics/members", audience="vip")
    return set(rig.memberships()) == {row["email"] for row in members}


@pytest.mark.nightly
def test_after_a_restore_a_sync_and_a_comparison_put_everything_right(tmp_path):
    with Rig(tmp_path, delivery_lines=SHORT, more=SYNC) as rig:
        rig.sandbox.post("lytics/profiles", [person(number) for number in range(60)])
        start_worker(rig)
        until(lambda: len(rig.memberships()) == 60, 60)
        run(rig, "pause", "exit", "--reason", "some wait while the copy is made")
        move(rig, range(10), "exit")
        until(lambda: rig.waiting() >= 10)
        copy(rig)
        run(rig, "resume", "exit")
        until(lambda: is_true(rig), 60)
        move(rig, range(5), "enter")
        move(rig, range(20, 30), "exit")
        rig.sandbox.post("lytics/profiles", [person(number) for number in range(60, 70)])
        until(lambda: is_true(rig), 60)

        restore(rig)
        start_worker(rig)
        run(rig, "resume", "exit")
        rig.wait_until_empty(60)
        run(rig, "sync", "run", "vips")
        rig.wait_until_empty(60)

        until(lambda: is_true(rig), 30)
        run(rig, "sync", "run", "vips", "--dry-run")

"""A backup is restored, and what came after it is brought back: nobody is wrong."""

import shutil

import pytest

from tests.journeys.play import (
    SHORT,
    Rig,
    invent,
    lines,
    nothing_is_wrong,
    run,
    send,
    start_worker,
    status_of,
)


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


@pytest.mark.nightly
def test_after_a_restore_the_events_of_the_hour_put_everything_right(tmp_path):
    happened, sent = invent(600, 120, seed=5)
    with Rig(tmp_path, delivery_lines=SHORT) as rig:
        start_worker(rig)
        send(rig, lines(sent[:200]))
        rig.wait_until_empty(60)
        run(rig, "pause", "enter", "--why", "some wait while the copy is made")
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

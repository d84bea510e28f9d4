"""A Redis whose memory or disk is full: it says so, nothing is lost, it works itself empty."""

import os
import resource
import subprocess
from contextlib import contextmanager, suppress

import pytest

from tests.child_processes import with_descendants
from tests.journeys.play import (
    SHORT,
    Rig,
    invent,
    lines,
    nothing_is_wrong,
    send,
    start_worker,
    status_of,
    watched,
)
from tests.nightly import amount
from tests.waiting import until

PROFILE = {"profile_bytes": 2_000}
REFUSED = 1
EVENTS = amount(1_800, nightly=6_000)


def refusal(rig, given):
    """Send what must be refused; returns what the command says."""
    answer = rig.command("send", "-", "--json", "--timeout", "2s", given=given)
    said = answer.stderr.decode()
    assert answer.returncode == REFUSED, said
    assert "Traceback" not in said
    return said


def test_what_fills_redis_beyond_its_memory_does_not_stop_the_workers(tmp_path):
    happened, sent = invent(EVENTS, EVENTS // 3, seed=20)
    with Rig(tmp_path) as rig, watched(rig):
        send(rig, lines(sent[: EVENTS * 5 // 6], **PROFILE))
        used = rig.client.info("memory")["used_memory"]
        rig.client.config_set("maxmemory", used // 4)  # as if somebody else's keys took it

        said = refusal(rig, lines(sent[EVENTS * 5 // 6 :], **PROFILE))
        start_worker(rig)
        rig.wait_until_empty(60)

        assert "full" in said
        rig.client.config_set("maxmemory", 2 * used)
        send(rig, lines(sent[EVENTS * 5 // 6 :], **PROFILE))
        rig.wait_until_empty(60)
        nothing_is_wrong(rig, happened)


@contextmanager
def full_disk(rig):
    """Let Redis' next write of its log fail, and that of whichever is started meanwhile.

    Workers start Redis again too, as this process does; there is room again at the end.
    """
    size = max(file.stat().st_size for file in rig.settings.redis.data_dir.rglob("*.aof"))
    ours = [os.getpid(), *(pid for worker in rig.workers for pid in with_descendants(worker.pid))]
    for pid in (*ours, rig.redis_pid()):
        limit_files(pid, size // 2)
    try:
        until(lambda: not rig.redis_pid(), 20)
        yield
    finally:
        for pid in (*ours, rig.redis_pid()):
            limit_files(pid, resource.RLIM_INFINITY)


def limit_files(pid, size):
    """Let a process write no file beyond so many bytes, and what it starts; 0 = no process."""
    if pid:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.nightly
def test_a_full_disk_ends_redis_and_loses_nothing(tmp_path):
    happened, sent = invent(EVENTS, EVENTS // 3, seed=22)
    with Rig(tmp_path, delivery_lines=SHORT) as rig, watched(rig):
        accepted = sent[: EVENTS // 3]
        send(rig, lines(accepted, **PROFILE))
        start_worker(rig)
        until(lambda: status_of(rig)["delivered"] > 100, 20)

        # What starts Redis again has to inherit the limit from here, not from a warm server.
        rig.launch = subprocess.Popen
        with full_disk(rig):
            said = refusal(rig, lines(sent[EVENTS // 3 : EVENTS * 2 // 3], **PROFILE))
        assert rig.workers[0].poll() is None

        rig.start_redis()
        send(rig, lines(sent[EVENTS // 3 :], **PROFILE))  # the refused ones too
        rig.wait_until_empty(60)

        assert "Redis" in said
        nothing_is_wrong(rig, happened)
        assert rig.workers[0].poll() is None

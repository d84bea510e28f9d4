"""A large file is read by a process beside the one that writes, and nobody sees a difference."""

import os
import re
import signal
import subprocess
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import orjson
import pytest

from segrelay.ops.run.up import own_command
from segrelay.producer.sources.blocks import BATCH_BYTES
from tests.integration.producer.redis_contents import entries
from tests.nightly import amount
from tests.unit.producer.payload_samples import ENTER, wrapped
from tests.waiting import until
from tests.warm import WarmProcess

LIMIT_SECONDS = 120.0
PAYLOADS = 12_000
PAD = "x" * 10_700
"""What makes a file of so many payloads larger than 128 MB."""


def line(number, **more):
    profile = {"email": f"person{number}@example.com", "about": PAD, **more}
    return orjson.dumps(wrapped(segment_events=[{**ENTER, "id": None}], **profile))


ROOM = 1 + sum(size < BATCH_BYTES for size in accumulate(len(line(n)) for n in range(1_000)))
"""The deliveries of the first batch."""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join(map(line, range(PAYLOADS))))
    assert path.stat().st_size > 128_000_000
    yield path
    path.unlink()


@pytest.fixture
def sending(configure):
    processes = []

    def start(*arguments, stdin=subprocess.DEVNULL, room=10**9):
        """Start the command, which waits once so many deliveries of a backfill are in Redis."""
        process = WarmProcess(
            own_command("send", *map(str, arguments)),
            env={**os.environ, "SEGRELAY_CONFIG": str(configure(high_water=room).source)},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def children(pid):
    with suppress(OSError):
        for each in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, each.read_text().split()):
                yield child
                yield from children(child)


def drafting(process):
    """Return the process that reads the file: the one that was forked from another child."""
    (found,) = [grandchild for child in children(process.pid) for grandchild in children(child)]
    return found


def test_it_tells_the_same_as_a_pipe_of_the_same_lines(sending, file, client):
    broken = [b'{"segment_events": [', line(1, email=None), line(2, age=2**60), b"7"]
    text = b"\n".join([*map(line, range(PAYLOADS)), *broken, line(3), b'{"cut'])
    file.write_bytes(text)

    beside = sending(file, "--json")
    told_beside = beside.communicate(timeout=LIMIT_SECONDS)
    pipe = sending("-", "--json", stdin=subprocess.PIPE)
    told = pipe.communicate(text, LIMIT_SECONDS)

    assert orjson.loads(told_beside[0]) == orjson.loads(told[0])
    assert len(orjson.loads(told[0])["problems"]) == 4
    assert beside.returncode == pipe.returncode == 1
    assert b"has no end" in told_beside[1]
    assert len(entries(client)) == 2 * (PAYLOADS + 2)


def test_small_files_are_read_by_the_command_itself(sending, file, client):
    file.write_bytes(b"\n".join(map(line, range(100))))
    process = sending(file)

    started = []
    while process.poll() is None:
        started += children(process.pid)

    assert len(entries(client)) == 100
    assert started == []


SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "code"), amount(SIGNALS[:1], nightly=SIGNALS))
def test_an_interruption_tells_what_is_surely_in_redis(sending, file, client, number, code):
    process = sending(file, "--lane", "backfill", room=ROOM)
    until(lambda: len(entries(client)) == ROOM)
    reading = drafting(process)

    os.killpg(process.pid, number)
    told = process.communicate(timeout=LIMIT_SECONDS)[1].decode()

    assert process.returncode == code
    assert f"Everything before line {ROOM} is in Redis" in told
    until(lambda: not Path(f"/proc/{reading}").exists())


def test_a_process_that_reads_and_was_killed_is_told(sending, file, client):
    process = sending(file, "--lane", "backfill", room=ROOM)
    until(lambda: len(entries(client)) == ROOM)
    taken = 0

    os.kill(drafting(process), signal.SIGKILL)
    while process.poll() is None:  # room, as workers make it
        for key in client.scan_iter("*s:backfill|*", _type="stream"):
            taken += client.xtrim(key, maxlen=0)
    told = process.communicate(timeout=LIMIT_SECONDS)[1].decode()

    assert process.returncode == 1
    assert f"The process that reads {file} ended (exit code -9)." in told
    line = int(re.search(r"Everything before line (\d+) is in Redis", told)[1])
    assert line == taken + len(entries(client)) < PAYLOADS

"""Promise 2 for `segrelay send -` from a pipe that stays open, and for who is interrupted."""

import os
import signal
import subprocess
import time
from itertools import count

import orjson
import pytest

from segrelay.ops.run.up import own_command
from tests.integration.producer.redis_contents import entries
from tests.unit.producer.payload_samples import person
from tests.waiting import allowed, until
from tests.warm import WarmProcess

LIMIT_SECONDS = 120.0


def line(number, **entry):
    return orjson.dumps(person(number, id=None, **entry))


@pytest.fixture
def sending(configure):
    settings = configure()
    processes = []

    def start(*arguments):
        process = WarmProcess(
            own_command("send", *arguments),
            env={**os.environ, "SEGRELAY_CONFIG": str(settings.source)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def write(process, *lines):
    process.stdin.write(b"".join(one + b"\n" for one in lines))
    process.stdin.flush()


def begin(process, client):
    """Let it write a first line, so that it waits for more."""
    write(process, line(0))
    until(lambda: len(entries(client)) == 1)


def ended(process, number):
    process.send_signal(number)
    _, told = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, told.decode()


def test_a_line_of_a_pipe_is_in_redis_within_a_second(sending, client):
    process = sending("-")
    begin(process, client)
    waits = []

    for number in range(1, 12):
        write(process, line(number))
        begun = time.monotonic()
        until(lambda expected=number + 1: len(entries(client)) == expected)
        waits.append(time.monotonic() - begun)

    assert sorted(waits)[-2] < allowed(1.0), "a disk may be slow once"


def test_a_trickle_without_a_pause_is_written_within_a_second_too(sending, client):
    process = sending("-")
    begin(process, client)
    numbers = count(1)

    until(lambda: write(process, line(next(numbers))) or len(entries(client)) > 1, 5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interruption_writes_what_has_come_and_names_the_line(sending, client, number, code):
    process = sending("-")
    begin(process, client)
    write(process, line(1), line(2))
    until(lambda: len(entries(client)) == 3)

    returned, told = ended(process, number)

    assert returned == code
    assert len(entries(client)) == 3
    assert "Interrupted. Everything before line 3 is in Redis" in told
    assert "from line 3 on again is safe" in told
    assert "except for changes without a time of their own" in told


def test_of_several_payloads_on_a_line_the_line_itself_is_named(sending, client):
    process = sending("-")
    write(process, line(0), line(1) + b" " + line(2) + b" " + line(3))
    until(lambda: len(entries(client)) == 4)

    _, told = ended(process, signal.SIGTERM)

    assert "Everything before line 2 is in Redis" in told
    assert "from line 2 on again is safe" in told


def test_a_table_in_a_pipe_is_refused_at_once(sending):
    process = sending("-")

    write(process, b"email,name", b"ann@example.com,Ann")

    assert process.wait(LIMIT_SECONDS) == 2
    assert b"is a table (CSV)" in process.stderr.read()

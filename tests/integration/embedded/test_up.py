"""`segrelay up` as a process: what it started ends with it."""

import os
import signal
import subprocess
import time

import pytest

from ops.cli.init import init
from ops.embedded.lifecycle import ensure_running, find, stop
from ops.supervisor import own_command

SECONDS = 30.0


@pytest.fixture
def folder(tmp_path):
    init(tmp_path)
    yield tmp_path
    stop(tmp_path / ".segrelay")


@pytest.fixture
def up(folder):
    """Start it, in a process group of its own, as a terminal does."""
    process = subprocess.Popen(
        own_command("--config", str(folder / "segrelay.toml"), "up"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=SECONDS)


def line_with(process, words):
    """Return the first line that holds these words; "" if it ended without one."""
    assert process.stdout is not None
    return next((line for line in process.stdout if words in line), "")


def pid_of(folder):
    found = find(folder / ".segrelay")
    return found.pid if found else 0


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("moment", ["redis   | ready", "ready."])
def test_ctrl_c_ends_the_redis_that_it_started(up, folder, moment):
    assert line_with(up, moment)

    os.killpg(up.pid, signal.SIGINT)
    rest, _ = up.communicate(timeout=SECONDS)

    assert up.returncode == 0
    assert "redis   | stopped" in rest
    assert "Traceback" not in rest
    assert pid_of(folder) == 0


def test_ctrl_c_while_redis_starts_leaves_none_behind(up, folder):
    assert until((folder / ".segrelay").is_dir)

    os.killpg(up.pid, signal.SIGINT)
    up.communicate(timeout=SECONDS)

    assert pid_of(folder) == 0


def test_a_redis_that_was_killed_is_started_again(up, folder):
    assert line_with(up, "ready.")
    first = pid_of(folder)

    os.kill(first, signal.SIGKILL)

    assert line_with(up, "started again on its files")
    assert until(lambda: pid_of(folder) not in {0, first})


def test_a_redis_that_somebody_else_started_goes_on(folder):
    before = ensure_running(folder / ".segrelay")
    process = subprocess.Popen(
        own_command("--config", str(folder / "segrelay.toml"), "up"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    )
    told = line_with(process, "was running already")

    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=SECONDS)

    assert told
    assert pid_of(folder) == before.pid

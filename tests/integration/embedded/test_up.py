"""`segrelay up` as a process: what it started ends with it."""

import json
import os
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import pytest

from segrelay.ops.config.commands import init
from segrelay.ops.embedded import ensure_running, find, stop
from segrelay.ops.run.up import own_command
from tests.child_processes import children_of, command_of, lives
from tests.journeys.receiver import answers
from tests.ports import own_port
from tests.waiting import until
from tests.warm import WarmProcess, run

SECONDS = 120.0


@pytest.fixture
def folder(tmp_path):
    init(tmp_path)
    yield tmp_path
    stop(tmp_path / ".segrelay")


@contextmanager
def running(environment, *words, stderr=subprocess.STDOUT):
    """Run `segrelay up`, or another command, in a process group of its own, as a terminal does."""
    process = WarmProcess(
        own_command(*words or ["up"]),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        process_group=0,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=SECONDS)


@pytest.fixture
def environment(folder):
    return {**os.environ, "SEGRELAY_CONFIG": str(folder / "segrelay.toml")}


@pytest.fixture
def up(environment):
    with running(environment, stderr=subprocess.DEVNULL) as process:
        yield process


def line_with(process, words):
    """Return the first line that holds these words; "" if it ended without one, or was too slow."""
    killer = threading.Timer(SECONDS, process.kill)
    killer.start()
    try:
        lines = (line.decode() for line in process.stdout)
        return next((line for line in lines if words in line), "")
    finally:
        killer.cancel()


def pid_of(folder):
    found = find(folder / ".segrelay")
    return found.pid if found else 0


def ctrl_c_ends(up, folder):
    os.killpg(up.pid, signal.SIGINT)
    rest, _ = up.communicate(timeout=SECONDS)

    assert up.returncode == 0
    assert b"redis   | stopped" in rest
    assert b"Traceback" not in rest
    assert pid_of(folder) == 0


@pytest.fixture
def console(folder):
    """Return where the console is to be served; the configuration says so."""
    port = own_port()
    with (folder / "segrelay.toml").open("a") as file:
        file.write(f'\n[console]\nlisten = "127.0.0.1:{port}"\n')
    return f"http://127.0.0.1:{port}"


def test_a_redis_that_was_killed_is_started_again_and_all_ends_at_ctrl_c(console, up, folder):
    assert line_with(up, "ready.")
    until(lambda: answers(f"{console}/healthz"), 60)
    page = httpx.get(console, timeout=SECONDS)
    first = pid_of(folder)

    os.kill(first, signal.SIGKILL)

    assert (page.status_code, "Balance" in page.text) == (200, True)
    assert line_with(up, "started again on its files")
    until(lambda: pid_of(folder) not in {0, first})
    ctrl_c_ends(up, folder)
    with pytest.raises(httpx.TransportError):
        httpx.get(console)


def test_ctrl_c_while_redis_starts_leaves_none_behind(up, folder):
    until((folder / ".segrelay").is_dir)

    os.killpg(up.pid, signal.SIGINT)
    up.communicate(timeout=SECONDS)

    assert pid_of(folder) == 0


def test_a_redis_that_somebody_else_started_goes_on(folder, environment):
    before = ensure_running(folder / ".segrelay")
    with running(environment) as up:
        told = line_with(up, "was running already")
        os.killpg(up.pid, signal.SIGINT)
        up.communicate(timeout=SECONDS)

    assert told
    assert pid_of(folder) == before.pid


@pytest.fixture
def sandbox_run(folder, environment):
    """The environment of whoever takes part in a sandbox run."""
    yield environment | {"SEGRELAY_SANDBOX": f"http://127.0.0.1:{own_port()}"}
    stop(folder / ".segrelay-sandbox")


def asked(environment, *arguments, given=""):
    done = run(own_command(*arguments), given.encode(), env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def payload():
    entrance = {"slug": "vip", "event": "enter", "enter": datetime.now(UTC).isoformat()}
    return json.dumps({"data": {"email": "ann@example.com", "segment_events": [entrance]}})


def test_a_sandbox_run_begins_empty_each_time_and_touches_nothing_real_until_a_reset_forgets_it(
    folder, sandbox_run
):
    undecided = {key: sandbox_run[key] for key in sandbox_run if key != "SEGRELAY_SANDBOX"}
    entered = payload()
    summary = f"{sandbox_run['SEGRELAY_SANDBOX']}/_sandbox/summary"

    def applied():
        return httpx.get(summary, trust_env=False, timeout=60).json()["users"]["applied"]

    def deliver():
        asked(sandbox_run, "send", "-", "--json", given=entered)
        until(applied)
        assert applied() == 1

    with running(sandbox_run, "up", "--sandbox") as up:
        assert line_with(up, "ready.")
        deliver()
        refused = run(own_command("send", "-"), payload().encode(), env=undecided)
        elsewhere = {"SEGRELAY_SANDBOX": f"http://127.0.0.1:{own_port()}"}
        second = run(own_command("up", "--sandbox"), env=undecided | elsewhere)
        reset = run(own_command("sandbox", "reset"), env=undecided)
        assert (folder / ".segrelay-sandbox").is_dir()
        assert not (folder / ".segrelay").exists()
        meant = asked(undecided, "send", "-", "--json", "--real", given=payload())
    with running(sandbox_run, "up", "--sandbox") as up:
        assert line_with(up, "ready.")
        deliver()
        children = children_of(up.pid)
        (sandbox,) = (pid for pid in children if b"segrelay.sandbox" in command_of(pid))
        os.kill(sandbox, signal.SIGKILL)
        until(lambda: not lives(sandbox) and answers(summary))
        deliver()
        until(lambda: asked(sandbox_run, "status", "--json")["delivered"])
        children = children_of(up.pid)
        assert len(children) >= 2
        up.kill()
        up.wait(SECONDS)
        afterwards = asked(undecided, "send", "-", "--json", given=payload())
        until(lambda: not any(map(lives, children)))
    assert find(folder / ".segrelay-sandbox")
    first, again = (run(own_command("sandbox", "reset"), env=sandbox_run) for _ in range(2))

    assert refused.returncode == 2
    assert f"export SEGRELAY_SANDBOX={sandbox_run['SEGRELAY_SANDBOX']}" in refused.stderr.decode()
    assert b"--real" in refused.stderr
    assert (second.returncode, b"A sandbox runs" in second.stderr) == (1, True)
    assert (reset.returncode, b"A sandbox runs" in reset.stderr) == (1, True)
    assert meant["accepted"]
    assert afterwards["accepted"]
    assert (first.returncode, first.stdout) == (0, b"the sandbox run is forgotten\n")
    assert (again.returncode, again.stdout) == (0, b"there was nothing to forget\n")
    assert find(folder / ".segrelay-sandbox") is None
    kept = [file for file in (folder / ".segrelay-sandbox").rglob("*") if file.is_file()]
    assert not [file for file in kept if b"ann@example.com" in file.read_bytes()]
    assert asked(sandbox_run, "status", "--json")["accepted"] == 0


def test_a_port_in_use_is_named_before_anything_starts(folder, sandbox_run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(sandbox_run["SEGRELAY_SANDBOX"].rpartition(":")[2])))
        taken.listen()
        with running(sandbox_run, "up", "--sandbox") as up:
            said, _ = up.communicate(timeout=SECONDS)

    assert up.returncode == 1
    assert b"already" in said
    assert not (folder / ".segrelay-sandbox").exists()

"""Flower beside a worker: drains can be watched, by those who know the password."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest

from producer.publish import Publisher
from worker.contract.connection import connect
from worker.contract.settings import load_settings

PASSWORD = "a, long: password"
CONFIGURATION = """
[redis]
url = "{url}"
partitions = 4
[destinations.insider]
api = "http"
base_url = "http://127.0.0.1:9"
rate = "25000/min"
[triggers.enter]
destination = "insider"
audiences = ["vip"]
on = "enter"
template = "never.jsonnet"
url = "/"
[flower]
listen = "127.0.0.1:{port}"
user = "ops"
password = "env:FLOWER_TEST_PASSWORD"
"""
PAYLOAD = (
    b'{"data": {"email": "somebody@example.com", "segment_events":'
    b' [{"slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}]}}'
)


@pytest.fixture
def configuration(tmp_path, redis_url):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "never.jsonnet").write_text("assert false : 'not today'; {}")
    path = tmp_path / "segrelay.toml"
    path.write_text(CONFIGURATION.format(url=redis_url, port=free_port()))
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(configuration, *command):
    with configuration.with_name(f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli.main", *command],
            env={
                **os.environ,
                "SEGRELAY_CONFIG": str(configuration),
                "FLOWER_TEST_PASSWORD": PASSWORD,
            },
            cwd=configuration.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(15)


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come in time")


def test_drains_are_watched_with_flower_and_only_with_its_password(configuration, redis_url):
    settings = load_settings(configuration, environ={"FLOWER_TEST_PASSWORD": PASSWORD})
    api = httpx.Client(base_url=f"http://{settings.flower.listen}/api", trust_env=False)

    def ask(path):
        try:
            answer = api.get(path, auth=("ops", PASSWORD))
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None

    with (
        api,
        running(configuration, "flower") as flower,
        running(configuration, "worker", "--concurrency=2") as worker,
        connect(redis_url) as client,
    ):
        workers = until(lambda: ask("/workers?refresh=1"))
        Publisher(client, settings).publish([PAYLOAD])
        tasks = until(lambda: [t for t in ask("/tasks").values() if t["state"] == "SUCCESS"])

        assert api.get("/workers").status_code == 401
        assert api.get("/tasks", auth=("ops", "a")).status_code == 401
        assert api.post("/worker/shutdown/any").status_code == 401
        assert [w["stats"]["pool"]["max-concurrency"] for w in workers.values()] == [2]
        assert {task["name"] for task in tasks} == {"worker.tasks.drain"}
        drain = next(task for task in tasks if "skipped 1" in task["result"])
        assert drain["args"].startswith("insider, partition ")
        assert drain["result"] == "delivered 0, skipped 1, dead 0, 0 requests, waited 0.0 s"
        assert "somebody" not in str(tasks)
        assert PASSWORD not in command_line(flower) + command_line(worker)


def command_line(process):
    shown = subprocess.run(
        ["/bin/ps", "-ww", "-o", "args=", "-p", str(process.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ops.cli.main" in shown.stdout
    return shown.stdout


@pytest.mark.parametrize(
    ("lines", "password", "said"),
    [
        pytest.param(True, "", "FLOWER_TEST_PASSWORD", id="unset"),
        pytest.param(False, PASSWORD, "[flower] is missing", id="no table"),
    ],
)
def test_without_a_password_flower_does_not_start(configuration, lines, password, said):
    if not lines:
        configuration.write_text(configuration.read_text().partition("[flower]")[0])
    environment = {**os.environ, "SEGRELAY_CONFIG": str(configuration)}

    done = subprocess.run(
        [sys.executable, "-m", "ops.cli.main", "flower"],
        env=environment | ({"FLOWER_TEST_PASSWORD": password} if password else {}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr

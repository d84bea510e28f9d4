"""Flower beside a worker: drains can be watched, by those who know the password."""

import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from celery import Celery

from segrelay.ops.run.up import own_command
from segrelay.producer.publish import Publisher
from segrelay.worker.contract.celery import broker_options
from segrelay.worker.contract.processes import read_processes
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.node.celery_app import NO_FREE_PERMIT
from tests.configuration import configuration as settings_text
from tests.configuration import endpoint, table, trigger
from tests.journeys.receiver import answers
from tests.ports import own_port
from tests.waiting import until
from tests.warm import WarmProcess, run

PASSWORD = "a, long: password"
PASSED = {"FLOWER_TEST_PASSWORD": PASSWORD}
MISLEADING = {
    "FLOWER_BASIC_AUTH": "other:password",
    "FLOWER_URL_PREFIX": "watch",
}
"""Variables that would let strangers in, or hide the pages, and are ignored."""
PAYLOAD = (
    b'{"data": {"email": "somebody@example.com", "segment_events":'
    b' [{"slug": "vip", "event": "enter", "enter": "2026-11-01T10:00:00Z"}]}}'
)


@pytest.fixture
def configuration(tmp_path, redis_url):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "never.jsonnet").write_text("assert false : 'not today'; {}")
    (tmp_path / "templates" / "dies.jsonnet").write_text("error 'somebody has no name'")
    for name in ("flowerconfig.py", "celeryconfig.py", "worker/__init__.py", "flower/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    path = tmp_path / "segrelay.toml"
    path.write_text(
        settings_text(
            endpoint("insider"),
            trigger("enter", template="never.jsonnet", url="/"),
            trigger("exit", on="exit", template="dies.jsonnet", url="/"),
            table(
                "flower",
                listen=f"127.0.0.1:{own_port()}",
                user="ops",
                password="env:FLOWER_TEST_PASSWORD",
            ),
            redis=redis_url,
            partitions=4,
        )
    )
    return path


@contextmanager
def running(configuration, *command, launch=WarmProcess):
    with configuration.with_name(f"{command[0]}.log").open("wb") as log:
        process = launch(
            own_command(*command),
            env={**os.environ, **MISLEADING, **PASSED, "SEGRELAY_CONFIG": str(configuration)},
            cwd=configuration.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)


def test_drains_are_watched_with_flower_and_only_with_its_password(configuration, redis_url):
    settings = load_settings(configuration, environ=PASSED)
    with (
        running(configuration, "flower", launch=subprocess.Popen) as process,
        running(configuration, "worker", "--concurrency=2"),
        connect(redis_url) as client,
        FlowerClient(configuration) as flower,
    ):

        def drained(state, result):
            ended = flower.tasks(state=state).values()
            return next((one for one in ended if result in one["result"]), None)

        until(lambda: read_processes(client))
        known = until(lambda: [w for w in flower.workers(refresh=1).values() if "stats" in w])
        until(lambda: any(flower.workers(status=1).values()))  # it hears of what they do
        Publisher(client, settings).publish([PAYLOAD])
        drain = until(lambda: drained("SUCCESS", "skipped 1"))
        Publisher(client, settings).publish([PAYLOAD.replace(b"enter", b"exit")])
        failed = until(lambda: drained("FAILURE", "dead 1"))
        page = flower.http.get("/tasks").text

        flower.http.auth = None
        for path in ("/api/workers", "/metrics"):
            assert flower.http.get(path).status_code == 401
        assert answers(f"{flower.url}/healthcheck")
        assert flower.http.get("/api/tasks", auth=("other", "password")).status_code == 401
        assert flower.http.post("/api/worker/shutdown/any").status_code == 401
        flower.http.auth = ("ops", PASSWORD)
        assert flower.http.get("/metrics").status_code == 403
        assert [worker["stats"]["pool"]["max-concurrency"] for worker in known] == [2]
        assert drain["name"] == "segrelay.drain"
        assert re.fullmatch("insider, partition [0-3], live", drain["args"])
        assert drain["result"] == "delivered 0, skipped 1, dead 0, 0 requests"
        assert failed["result"] == "delivered 0, skipped 0, dead 1, 0 requests"
        assert re.findall('data-column="([a-z]+)"', page)[:4] == ["name", "args", "state", "result"]
        assert "somebody" not in str(flower.tasks())
        assert PASSWORD not in command_line(process)
    assert not (configuration.parent / "executed").exists()


@pytest.mark.nightly
def test_drains_that_found_no_free_permit_do_not_bury_the_others(configuration):
    settings = load_settings(configuration, environ=PASSED)
    app = Celery("test")
    app.conf.update(broker_options(settings))
    told = [("a", NO_FREE_PERMIT), ("b", "delivered 7, skipped 0, dead 0"), ("c", NO_FREE_PERMIT)]

    with (
        running(configuration, "flower"),
        FlowerClient(configuration) as flower,
        app.connection() as connection,
        app.events.Dispatcher(connection, hostname="celery@here") as dispatcher,
    ):

        def shown():
            for uuid, result in told:
                dispatcher.send("task-received", uuid=uuid, name="drain", args="", kwargs="")
                dispatcher.send("task-succeeded", uuid=uuid, result=result, runtime=0.1)
            return set(flower.tasks())

        # What was received, and whose end it has not heard of yet, is shown for a moment.
        until(lambda: shown() == {"b"})


def command_line(process):
    shown = subprocess.run(
        ["/bin/ps", "-ww", "-o", "args=", "-p", str(process.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "segrelay.ops.main" in shown.stdout
    return shown.stdout


def test_flower_does_not_start_without_a_password_a_table_or_its_port(configuration):
    text = configuration.read_text()
    listen = load_settings(configuration, environ={}).flower.listen
    environment = {**os.environ, "SEGRELAY_CONFIG": str(configuration)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        its_listen = f"127.0.0.1:{taken.getsockname()[1]}"
        for changed, password, code, said in (
            (text, {}, 2, "FLOWER_TEST_PASSWORD"),
            (text.partition("[flower]")[0], PASSED, 2, "[flower] is missing"),
            (text.replace(listen, its_listen), PASSED, 1, f"listens on {its_listen} already"),
        ):
            configuration.write_text(changed)

            done = run(own_command("flower"), env=environment | password)

            assert done.returncode == code, done.stderr
            assert said in (done.stdout + done.stderr).decode()
            assert b"Traceback" not in done.stdout + done.stderr


class FlowerClient:
    """Knows the password and what Flower registers."""

    def __init__(self, configuration):
        settings = load_settings(configuration, environ=PASSED)
        self.url = f"http://{settings.flower.listen}"
        login = ("ops", PASSWORD)
        self.http = httpx.Client(base_url=self.url, trust_env=False, auth=login, timeout=120)
        until(lambda: answers(f"{self.url}/healthcheck"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def workers(self, **wanted):
        return self.http.get("/api/workers", params=wanted).json()

    def tasks(self, **wanted):
        return self.http.get("/api/tasks", params=wanted).json()

    def routes(self):
        """Return the patterns of all addresses that Flower registers."""
        done = subprocess.run(
            [sys.executable, "-c", LIST_ROUTES], capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    def post(self, route, name, **parameters):
        path = route.replace("/?", "").replace("(.+)", name).replace("(.*)", name)
        return self.http.post(path, params=parameters, json={"args": []}).status_code


# In a process of its own: Flower defines options of Tornado for all of a process.
LIST_ROUTES = """
from flower.urls import handlers
for one in handlers:
    print((one.regex.pattern if hasattr(one, "regex") else one[0]).rstrip("$"))
"""
ACTIONS = ("shutdown", "grow", "cancel-consumer", "add-consumer", "revoke", "rate-limit", "abort")


@contextmanager
def beside_a_worker(configuration, redis_url):
    """Yield Flower's client, a worker and its name, once Flower knows the worker."""
    with (
        running(configuration, "worker", "--concurrency=2") as worker,
        running(configuration, "flower"),
        connect(redis_url) as client,
        FlowerClient(configuration) as flower,
    ):
        until(lambda: read_processes(client))
        (name,) = until(lambda: list(flower.workers(refresh=1)))
        yield flower, worker, name


def test_nobody_can_act_with_flower_unless_it_is_configured(configuration, redis_url):
    with beside_a_worker(configuration, redis_url) as (flower, worker, name):
        routes = flower.routes()
        for action in ACTIONS:
            assert any(action in route for route in routes)
        answered = {route: flower.post(route, name, queue="segrelay.live", n=1) for route in routes}

        allowed_reads = {"/tasks/datatable"}
        acted = {route for route, status in answered.items() if status != 403} - allowed_reads
        assert acted == set()
        assert flower.http.put("/api/workers").status_code == 403
        assert "Shut Down" not in flower.http.get(f"/worker/{name}").text
        assert flower.http.post("/api/worker/shutdown/x", auth=("ops", "no")).status_code == 401
        assert worker.poll() is None
        assert queues_of(flower, name) == {"segrelay.live", "segrelay.backfill"}


@pytest.mark.nightly
def test_with_actions_flower_stops_workers_and_still_starts_no_task(configuration, redis_url):
    configuration.write_text(configuration.read_text() + "actions = true\n")
    with beside_a_worker(configuration, redis_url) as (flower, worker, name):
        for way in ("apply", "async-apply", "send-task"):
            assert flower.post(f"/api/task/{way}/(.+)", "segrelay.drain") == 403
        assert flower.post("/api/worker/shutdown/(.+)", name) == 200
        assert worker.wait(120) == 0


def queues_of(flower, name):
    known = until(lambda: flower.workers(refresh=1).get(name, {}).get("active_queues"))
    return {queue["name"] for queue in known}

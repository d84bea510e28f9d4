"""Failures that are staged one after the other on one system: each is named, then cured.

`status --check` exits with 1 within 15 s and names cause and remedy; all is well 30 s after the
cure.
"""

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson

import templates as shipped
from ops.rig.rig import free_port, kill_group
from tests.journeys.judging import NAMED_SECONDS, entrances, ill_of, judged, well
from tests.journeys.play import SHORT, Rig, publish, start_worker, stop_worker
from tests.waiting import until
from worker.node.process.upkeep import EVERY_SECONDS

QUICK = '[operate]\nlive_within = "3s"\n'
SECRET = "the-secret"
RECEIVER = QUICK + '[producer.webhook]\nlisten = "127.0.0.1:{port}"\nsecret = "the-secret"\n'
OTHER = """
[authorizations.other]
headers = { X-PARTNER-NAME = "acme", X-REQUEST-TOKEN = "env:KEY_OF_THE_TEST" }
[destinations.other]
api = "insider"
base_url = "SANDBOX"
authorization = "other"
rate = "600/min"
[triggers.other]
destination = "other"
audiences = ["newsletter"]
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"
"""
TEMPLATE = "insider/enter.jsonnet"
FAILING = """
local event = import "lytemplates.libsonnet";
local email = event.get("email");
if std.startsWith(email, "person") then error "nobody knows them" else {
  users: [{
    identifiers: { email: email },
    attributes: { custom: { lytics_computed_attr: [event.segSlug()] } },
  }],
}
"""
"""Takes the shipped sample, and none of the people who are published."""
SHIPPED = (Path(shipped.__file__).parent / TEMPLATE).read_text()


class Publishing:
    """Publishes people who enter, each of them once."""

    def __init__(self, rig):
        self._rig, self._next = rig, 0

    def enter(self, count, audience="vip"):
        publish(self._rig, entrances(count, self._next, audience))
        self._next += count


def run(rig, *words):
    done = rig.command(*words)
    assert done.returncode == 0, (words, done.stderr)


def says(problem, message, command):
    """Hold cause and remedy of a problem against what they have to contain."""
    assert message in problem["message"], problem
    assert command in problem["command"], problem


@contextmanager
def frozen(processes):
    """Let processes stand still for a while."""
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def children_of(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_failures_of_a_destination_and_of_processes_are_named(tmp_path):
    with Rig(tmp_path, delivery_lines=SHORT, more=QUICK) as rig:
        worker, people = start_worker(rig), Publishing(rig)
        people.enter(1)
        well(rig)

        rig.sandbox.settings(credentials_status=401)
        people.enter(5)
        says(ill_of(rig, "destination_paused"), "401", "segrelay resume insider")
        rig.sandbox.settings(credentials_status=0)
        run(rig, "resume", "insider")
        well(rig)

        rig.sandbox.settings(error_shares={"503": 1.0})
        people.enter(20)
        says(ill_of(rig, "destination_broken"), "503", "segrelay status")
        rig.sandbox.settings(error_shares={})
        well(rig)

        run(rig, "pause", "enter", "--reason", "the panel is mended")
        people.enter(1)
        says(ill_of(rig, "trigger_paused"), "the panel is mended", "segrelay resume enter")
        run(rig, "resume", "enter")
        well(rig)

        rig.sandbox.settings(failures=[{"status": 400, "contains": "users"}])
        people.enter(1)
        says(ill_of(rig, "trigger_refused"), "400", "segrelay status")
        rig.sandbox.settings(failures=[])
        well(rig)

        with frozen(children_of(worker.pid)):
            people.enter(3)
            says(ill_of(rig, "live_late"), "has waited for", "segrelay status")
        well(rig)


def write_template(rig, text):
    (rig.folder / "templates" / TEMPLATE).write_text(text)
    time.sleep(EVERY_SECONDS)  # a drain that comes sooner does not look at its templates again


def test_failures_of_templates_and_of_the_configuration_are_named(tmp_path):
    with Rig(tmp_path, delivery_lines=SHORT, more=QUICK, templates={TEMPLATE: SHIPPED}) as rig:
        start_worker(rig)
        people = Publishing(rig)
        people.enter(1)
        well(rig)

        write_template(rig, "{ users: [")
        people.enter(1)
        says(ill_of(rig, "template_refused"), "is not used", "segrelay template check")
        write_template(rig, SHIPPED)
        people.enter(1)
        well(rig)

        write_template(rig, FAILING)
        people.enter(600)
        says(ill_of(rig, "trigger_paused"), "nobody knows them", "segrelay resume enter")
        write_template(rig, SHIPPED)
        run(rig, "resume", "enter")
        run(rig, "dlq", "replay", "--all", "--yes")
        well(rig)

        run(rig, "pause", "enter")
        people.enter(2)
        source = rig.settings.source
        before = source.read_text()
        source.write_text(before.replace("[triggers.enter]", "[triggers.entered]"))
        says(ill_of(rig, "orphaned"), "2 deliveries wait", "segrelay trigger move enter entered")
        says(ill_of(rig, "worker_configuration"), "another configuration", "restart")
        source.write_text(before)
        run(rig, "resume", "enter")
        well(rig)


def test_failures_of_backfills_and_of_secrets_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("KEY_OF_THE_TEST", raising=False)
    rows = b"\n".join(orjson.dumps({"email": f"p{n}@example.com"}) for n in range(20_000))
    source = tmp_path / "rows.ndjson"
    job = ("--audience", "vip", "--as-of", "now", "--name", "killed")
    with Rig(
        tmp_path, delivery_lines=SHORT, more=QUICK + OTHER, redis_lines="high_water = 1000"
    ) as rig:
        worker = start_worker(rig)
        says(ill_of(rig, "trigger_stopped"), "a secret", "segrelay config check")
        stop_worker(worker)
        says(ill_of(rig, "no_worker"), "no worker", "segrelay worker")
        monkeypatch.setenv("KEY_OF_THE_TEST", "a key")
        start_worker(rig)
        well(rig)

        source.write_bytes(rows)
        run(rig, "pause", "insider")  # so that the reader waits for room
        reader = rig.start_beside("backfill", "start", str(source), *job)
        until(lambda: rig.client.exists("{job:killed}"), NAMED_SECONDS)
        kill_group(reader)
        says(ill_of(rig, "job_interrupted"), "nobody reads it", "segrelay backfill resume killed")
        source.write_bytes(rows[:-1])
        assert rig.command("backfill", "resume", "killed").returncode != 0
        says(ill_of(rig, "job_failed"), "rows.ndjson", "segrelay backfill status killed")
        run(rig, "backfill", "abort", "killed", "--yes")
        run(rig, "resume", "insider")
        well(rig)


def post(port, content):
    headers = {"X-Segrelay-Secret": SECRET}
    try:
        url = f"http://127.0.0.1:{port}/v1/lytics"
        return httpx.post(url, content=content, headers=headers).status_code
    except httpx.TransportError:
        return 0


def test_failures_of_what_comes_in_are_named(tmp_path):
    port = free_port()
    with Rig(tmp_path, delivery_lines=SHORT, more=RECEIVER.format(port=port)) as rig:
        start_worker(rig)
        receiver = rig.start_beside("serve")
        until(lambda: post(port, entrances(1)) == 200, 60)
        until(lambda: rig.client.exists("{segrelay}:progress"), 30)
        until(lambda: rig.client.hexists("{segrelay}:receiver", "event"), 30)
        well(rig)

        assert post(port, entrances(12, 100, audience="vpi")) == 200
        says(ill_of(rig, "quarantine_grows"), "12 events", "segrelay quarantine list")
        run(rig, "quarantine", "discard", "--all", "--yes")
        well(rig)

        kill_group(receiver)
        says(ill_of(rig, "receiver_down"), "no receiver", "segrelay serve")
        rig.start_beside("serve")
        well(rig)

        source = rig.settings.source
        before = source.read_text()
        source.write_text(before.replace("[operate]", '[operate]\nevents_within = "1s"'))
        says(ill_of(rig, "no_events"), "no event", "segrelay serve --check")
        source.write_text(before)
        well(rig)


def test_failures_of_redis_are_named(tmp_path):
    with Rig(tmp_path, delivery_lines=SHORT, more=QUICK) as rig:
        start_worker(rig)
        well(rig)

        for name, wrong, right in (
            ("maxmemory-policy", "allkeys-lru", "noeviction"),
            ("appendonly", "no", "yes"),
        ):
            rig.client.config_set(name, wrong)
            says(ill_of(rig, "redis_not_durable"), name, "segrelay redis status")
            rig.client.config_set(name, right)
            well(rig)

        rig.kill_redis()
        until(lambda: judged(rig)[0] == 3, NAMED_SECONDS)
        assert b"is not running" in rig.command("status", "--check").stdout
        rig.start_redis()
        well(rig)

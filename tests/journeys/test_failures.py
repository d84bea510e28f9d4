"""Failures that are staged, one after the other on a few systems: each is named, told, and over.

Within 15 s `status --check` exits with 1 and names cause and remedy, the metric of the alert is
there, and one message has come. After the cure all is well within 30 s, and one message says so.

These are the failures. Unless another file is named, the test is in this one.

| failure | problem | test |
| --- | --- | --- |
| all deliveries of a trigger die | `dead_letters_grow` | `test_health.py`: `…thirty_of_thirty…` |
| Redis is full | `redis_full` | `test_health.py`: `…full_redis…` |
| Redis comes back empty | `redis_emptied` | `test_health.py`: `…comes_back_empty…` |
| a sync fails | `sync_fails` | `test_health.py`: `…sync_that_fails…` |
| a sync waits for a person | `sync_waits` | `test_health.py`: `…waits_for_a_person…` |
| two versions of a template are at work | `template_differs` | `…of_machines…` |
| a changed template is refused | `template_refused` | `…of_templates…` |
| a receiver is starved | `receiver_starved` | `…starved_receiver…` |
| no worker runs, and nothing waits | `no_worker` | `test_health.py`: `test_no_worker…` |
| Insider takes five seconds for each answer | `answers_slow` | `test_health.py`: `…take_long…` |
| a secret was changed at one end | `receiver_unauthorized` | `test_health.py`: `…one_end_only…` |
| events are accepted, and none is delivered | `live_late` | `…of_a_destination…` |
| Insider refuses the credentials | `destination_paused` | `…of_a_destination…` |
| Insider answers with errors | `destination_broken` | `…of_a_destination…` |
| Insider refuses the bodies | `trigger_refused` | `…of_a_destination…` |
| Redis is down | `redis_unreachable` (exit 3) | `…is_down…`; `test_health.py`: `…lost_redis` |
| a secret is not set | `trigger_stopped` | `…of_secrets_and_backfills…` |

And these were added:

| failure | problem | test |
| --- | --- | --- |
| something before Insider takes no body (413) | `dead_letters_grow` | `…of_a_destination…` |
| a person has paused a trigger | `trigger_paused` | `…of_a_destination…` |
| a template fails for everybody | `trigger_paused` | `…of_templates…` |
| a trigger was renamed in the configuration | `orphaned` | `…of_a_changed_configuration…` |
| a worker has an older configuration | `worker_configuration` | `…of_a_changed_configuration…` |
| the clock of a machine is ten minutes off | `clock_differs` | `…of_machines…` |
| the reader of a backfill is killed | `job_interrupted` | `…of_secrets_and_backfills…` |
| the file of a backfill was changed | `job_failed` | `…of_secrets_and_backfills…` |
| events name an audience that no trigger has | `quarantine_grows` | `…of_what_comes_in…` |
| the receiver is down | `receiver_down` | `…of_what_comes_in…` |
| webhooks are too large (413) | `receiver_too_large` | `test_health.py`: `…too_large…` |
| no event comes | `no_events` | `…silence…` |
| Redis may throw keys away | `redis_not_durable` | `…of_redis…` |
| Redis can't write to its disk | `redis_disk_fails` | `…of_redis…`, `…refuses_writes…` |
| the receiver hangs | `receiver_down` | `test_health.py`: `…stands_still…` |
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest

import templates as shipped
from ops.embedded import lifecycle as embedded
from ops.rig.rig import free_port, kill_group
from ops.run.supervisor import own_command
from tests.journeys.channel import OVER, PROBLEM, Channel
from tests.journeys.judging import NAMED_SECONDS, entrances, ill_of, judged, well
from tests.journeys.play import SHORT, Rig, await_ready, publish, start_worker, stop_worker
from tests.waiting import until
from tests.warm import WarmProcess
from worker.contract.processes.workers import LIFE_MS
from worker.node.process.upkeep import EVERY_SECONDS

QUICK = '[operate]\nlive_within = "3s"\n'
SECRET = "the-secret"
RECEIVER = """
[producer.webhook]
listen = "127.0.0.1:{port}"
secret = "the-secret"
"""
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
AHEAD = """
import runpy, sys, time
right = time.time
time.time = lambda: right() + 600
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module by a clock that is ten minutes ahead."""


class Stage:
    """One system on which failures are staged, and the chat that is told of them."""

    def __init__(self, rig, channel):
        self.rig, self.channel = rig, channel
        self._next, self._named = 0, []

    def enter(self, count, audience="vip"):
        """Publish people who enter, each of them once."""
        publish(self.rig, entrances(count, self._next, audience))
        self._next += count

    def run(self, *words):
        done = self.rig.command(*words)
        assert done.returncode == 0, (words, done.stderr)

    def named(self, name, message, command):
        """Wait until a failure is named and told, with cause and remedy."""
        problem = ill_of(self.rig, name)
        assert message in problem["message"], problem
        assert command in problem["command"], problem
        self.channel.announced(name, PROBLEM)
        [told] = self.channel.messages(name)
        assert message in told["text"], told
        assert command in told["text"], told
        self._named.append(name)

    def cured(self):
        well(self.rig)

    def all_over(self):
        """Wait until each failure was said to be over, once."""
        for name in self._named:
            self.channel.announced(name, PROBLEM, OVER)

    def start_beside_it(self, worker, *more):
        """Start another worker in the place of one that is stopped; with files of its own."""
        fresh = start_worker(self.rig, *more)
        stop_worker(worker)
        self.rig.workers.remove(worker)
        return fresh


@contextmanager
def staged(tmp_path, more="", **options):
    with Channel() as channel:
        table = QUICK + channel.table() + more
        with Rig(tmp_path, delivery_lines=SHORT, more=table, **options) as rig:
            stage = Stage(rig, channel)
            yield stage
            stage.all_over()


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
    with staged(tmp_path) as stage:
        rig = stage.rig
        worker = start_worker(rig)
        stage.enter(1)
        stage.cured()

        rig.sandbox.settings(credentials_status=401)
        stage.enter(5)
        stage.named("destination_paused", "401", "segrelay resume insider")
        rig.sandbox.settings(credentials_status=0)
        stage.run("resume", "insider")
        stage.cured()

        rig.sandbox.settings(error_shares={"503": 1.0})
        stage.enter(20)
        stage.named("destination_broken", "503", "segrelay status")
        rig.sandbox.settings(error_shares={})
        stage.cured()

        stage.run("pause", "enter", "--reason", "the panel is mended")
        stage.enter(1)
        stage.named("trigger_paused", "the panel is mended", "segrelay resume enter")
        stage.run("resume", "enter")
        stage.cured()

        rig.sandbox.settings(failures=[{"status": 400, "contains": "users"}])
        stage.enter(1)
        stage.named("trigger_refused", "400", "segrelay template check")
        rig.sandbox.settings(failures=[])
        stage.cured()

        with frozen(children_of(worker.pid)):
            stage.enter(3)
            stage.named("live_late", "has waited for", "segrelay status")
        stage.cured()

        rig.sandbox.settings(failures=[{"status": 413, "contains": "users"}])
        stage.enter(30)
        stage.named("dead_letters_grow", "too_large", "segrelay dlq causes")
        rig.sandbox.settings(failures=[])
        stage.run("dlq", "replay", "--all", "--yes")
        stage.cured()


def write_template(rig, text):
    (rig.folder / "templates" / TEMPLATE).write_text(text)
    time.sleep(EVERY_SECONDS)  # a drain that comes sooner does not look at its templates again


def test_failures_of_templates_are_named(tmp_path):
    with staged(tmp_path, templates={TEMPLATE: SHIPPED}) as stage:
        rig = stage.rig
        start_worker(rig)
        stage.enter(1)
        stage.cured()

        write_template(rig, "{ users: [")
        stage.enter(1)
        stage.named("template_refused", "is not used", "segrelay template check")
        write_template(rig, SHIPPED)
        stage.enter(1)
        stage.cured()

        write_template(rig, FAILING)
        stage.enter(600)
        stage.named("trigger_paused", "nobody knows them", "segrelay resume enter")
        write_template(rig, SHIPPED)
        stage.run("resume", "enter")
        stage.run("dlq", "replay", "--all", "--yes")
        stage.cured()


def test_failures_of_a_changed_configuration_are_named(tmp_path):
    with staged(tmp_path) as stage:
        rig = stage.rig
        worker = start_worker(rig)
        stage.run("pause", "enter")
        stage.enter(2)

        source = rig.settings.source
        source.write_text(source.read_text().replace("[triggers.enter]", "[triggers.entered]"))
        fresh = start_worker(rig)
        stage.named("worker_configuration", "another configuration", "restart")
        stop_worker(worker)
        stage.named("orphaned", "2 deliveries wait", "segrelay trigger move enter entered")
        stage.run("trigger", "move", "enter", "entered", "--yes")
        stage.cured()
        assert fresh.poll() is None


@contextmanager
def a_copy_elsewhere(rig):
    """Yield the folder of a second machine: equal files, at places of the same names."""
    source = rig.settings.source
    url = embedded.find(rig.settings.redis.data_dir).url
    own = source.read_text().replace(f'"{rig.folder}/templates"', '"templates"')
    source.write_text(own.replace('"embedded"', f'"{url}"'))
    other = rig.folder / "other"
    other.mkdir()
    shutil.copy(source, other)
    shutil.copytree(rig.folder / "templates", other / "templates")
    yield other


def start_elsewhere(rig, folder):
    """Start a worker with the files of another folder, and wait until it is ready."""
    with (folder / "worker.log").open("ab") as log:
        worker = WarmProcess(
            own_command("worker", "--hostname=other@%h"),
            env=rig.environment | {"SEGRELAY_CONFIG": str(folder / "segrelay.toml")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    until(lambda: b" ready." in (folder / "worker.log").read_bytes(), 60)
    return worker


def with_a_wrong_clock(command, **options):
    """Start one of our commands by a clock that is ten minutes ahead."""
    return subprocess.Popen([sys.executable, "-P", "-c", AHEAD, *command[3:]], **options)


def test_failures_of_machines_that_differ_are_named(tmp_path):
    with (
        staged(tmp_path, templates={TEMPLATE: SHIPPED}) as stage,
        a_copy_elsewhere(stage.rig) as folder,
    ):
        rig = stage.rig
        start_worker(rig)
        other = start_elsewhere(rig, folder)
        try:
            stage.cured()
            changed = folder / "templates" / TEMPLATE
            changed.write_text(f"{SHIPPED}\n// a newer version\n")
            stage.named(
                "template_differs", "differs between workers", "copy the same templates folder"
            )
            changed.write_text(SHIPPED)
            stage.cured()
        finally:
            kill_group(other)

        rig.launch = with_a_wrong_clock
        wrong = rig.start_worker()
        rig.launch = WarmProcess
        await_ready(rig, wrong)
        stage.named("clock_differs", "600 s ahead of", "set the clock by NTP")
        stop_worker(wrong)
        stage.cured()


def test_failures_of_secrets_and_backfills_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("KEY_OF_THE_TEST", raising=False)
    rows = b"\n".join(orjson.dumps({"email": f"p{n}@example.com"}) for n in range(20_000))
    source = tmp_path / "rows.ndjson"
    job = ("--audience", "vip", "--as-of", "now", "--name", "killed")
    with staged(tmp_path, OTHER, redis_lines="high_water = 1000") as stage:
        rig = stage.rig
        worker = start_worker(rig)
        stage.named("trigger_stopped", "a secret", "segrelay config check")
        monkeypatch.setenv("KEY_OF_THE_TEST", "a key")
        stop_worker(worker)
        start_worker(rig)
        stage.cured()

        source.write_bytes(rows)
        stage.run("pause", "insider")  # so that the reader waits for room
        reader = rig.start_beside("backfill", "start", str(source), *job)
        until(lambda: rig.client.exists("{job:killed}"), NAMED_SECONDS)
        kill_group(reader)
        stage.named("job_interrupted", "nobody reads it", "segrelay backfill resume killed")
        source.write_bytes(rows[:-1])
        assert rig.command("backfill", "resume", "killed").returncode != 0
        stage.named("job_failed", "rows.ndjson", "segrelay backfill status killed")
        stage.run("backfill", "abort", "killed", "--yes")
        stage.run("resume", "insider")
        stage.cured()


def post(port, content):
    headers = {"X-Segrelay-Secret": SECRET}
    try:
        url = f"http://127.0.0.1:{port}/v1/lytics"
        return httpx.post(url, content=content, headers=headers).status_code
    except httpx.TransportError:
        return 0


@pytest.fixture
def port():
    return free_port()


def receive(stage, port):
    """Start a receiver, and let it take an event."""
    receiver = stage.rig.start_beside("serve")
    until(lambda: post(port, entrances(1)) == 200, 60)
    until(lambda: stage.rig.client.hexists("{segrelay}:receiver", "event"), 30)
    return receiver


def test_failures_of_what_comes_in_are_named(tmp_path, port):
    with staged(tmp_path, RECEIVER.format(port=port)) as stage:
        rig = stage.rig
        start_worker(rig)
        receiver = receive(stage, port)
        until(lambda: rig.client.exists("{segrelay}:progress"), 30)
        stage.cured()

        assert post(port, entrances(12, 100, audience="vpi")) == 200
        stage.named("quarantine_grows", "12 events", "segrelay quarantine list")
        stage.run("quarantine", "discard", "--all", "--yes")
        stage.cured()

        kill_group(receiver)
        stage.named("receiver_down", "no receiver", "segrelay serve")
        receive(stage, port)
        stage.cured()


def test_a_silence_is_named(tmp_path, port):
    more = RECEIVER.format(port=port)
    with Channel() as channel:
        operate = QUICK + 'events_within = "10s"\n' + channel.table()
        with Rig(tmp_path, delivery_lines=SHORT, more=operate + more) as rig:
            stage = Stage(rig, channel)
            start_worker(rig)
            receive(stage, port)

            stage.named("no_events", "no event", "segrelay serve --check")
            with again_and_again(lambda: post(port, entrances(1)), 1.0):
                stage.cured()
                stage.all_over()


@contextmanager
def again_and_again(act, seconds):
    """Do something again and again beside the block."""
    is_over = threading.Event()

    def repeat():
        while not is_over.wait(seconds):
            act()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_starved_receiver_is_named(tmp_path, port):
    with staged(tmp_path, RECEIVER.format(port=port)) as stage:
        start_worker(stage.rig)
        receiver = receive(stage, port)
        stage.cured()

        def stop_for_a_while():
            os.kill(receiver.pid, signal.SIGSTOP)
            time.sleep(4)
            os.kill(receiver.pid, signal.SIGCONT)

        with again_and_again(stop_for_a_while, 0.2):
            stage.named("receiver_starved", "ms late", "segrelay serve --check")
        stage.cured()


@contextmanager
def in_the_way(path):
    """Let a file not be written: a folder that is not empty has its name."""
    path.mkdir()
    (path / "full").touch()
    try:
        yield
    finally:
        shutil.rmtree(path)


def test_failures_of_redis_are_named(tmp_path):
    with staged(tmp_path) as stage:
        rig = stage.rig
        start_worker(rig)
        stage.cured()

        rig.client.config_set("maxmemory-policy", "allkeys-lru")
        stage.named("redis_not_durable", "maxmemory-policy", "segrelay redis status")
        rig.client.config_set("maxmemory-policy", "noeviction")
        stage.cured()

        rig.client.config_set("save", "3600 1")
        with in_the_way(rig.settings.redis.data_dir / "dump.rdb"):
            rig.client.config_set("stop-writes-on-bgsave-error", "no")
            rig.client.bgsave()
            stage.named("redis_disk_fails", "snapshot", "segrelay redis status")
        rig.client.bgsave()
        stage.cured()


def test_a_redis_that_refuses_writes_for_its_disk_is_named_and_nothing_is_lost(tmp_path):
    with staged(tmp_path) as stage:
        rig = stage.rig
        start_worker(rig)
        stage.enter(3)
        stage.cured()

        rig.client.config_set("save", "3600 1")
        with in_the_way(rig.settings.redis.data_dir / "dump.rdb"):
            rig.client.bgsave()
            until(lambda: rig.client.info("persistence")["rdb_last_bgsave_status"] == "err", 15)
            problem = ill_of(rig, "redis_disk_fails")
            assert "refuses" in problem["message"], problem
            refused = rig.command("send", "-", given=entrances(5, 100))
            assert b"can't write to its disk" in refused.stderr, refused
            time.sleep(LIFE_MS / 1_000)  # by then nobody can have said that they run
            assert judged(rig)[1].keys() == {"redis_disk_fails"}
        rig.client.bgsave()
        stage.cured()
        assert rig.command("send", "-", given=entrances(5, 100)).returncode == 0
        stage.cured()


def test_a_redis_that_is_down_is_named(tmp_path):
    with staged(tmp_path) as stage:
        rig = stage.rig
        start_worker(rig)
        stage.cured()

        rig.kill_redis()
        until(lambda: judged(rig)[0] == 3, NAMED_SECONDS)
        assert b"is not running" in rig.command("status", "--check").stdout
        rig.start_redis()
        stage.cured()

"""Failures of a destination, of processes and of templates, staged one after the other."""

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

from tests.journeys.health.staging import SHIPPED, TEMPLATE, staged
from tests.journeys.play import start_worker
from worker.node.process.upkeep import EVERY_SECONDS

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

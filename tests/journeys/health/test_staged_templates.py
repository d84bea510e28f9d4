"""Failures of templates, staged one after the other."""

import time

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

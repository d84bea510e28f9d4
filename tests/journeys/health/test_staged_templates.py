"""Failures of templates: deliveries that die of them, and those that are staged."""

import time

import pytest

from segrelay.worker.node.loading import EVERY_SECONDS
from tests.journeys.health.staging import SHIPPED, TEMPLATE, staged
from tests.journeys.judging import NAMED_SECONDS, entrances, ill_of, well
from tests.journeys.play import SHORT, Rig, send, start_worker
from tests.waiting import until

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


def test_thirty_of_thirty_dead_deliveries_are_told_with_their_cause(tmp_path, channel):
    failing = {TEMPLATE: 'error "a person without a name"'}
    with Rig(tmp_path, delivery_lines=SHORT, templates=failing, more=channel.table()) as rig:
        start_worker(rig)
        until(lambda: rig.client.exists("{segrelay}:progress"), NAMED_SECONDS)
        send(rig, entrances(30))

        found = ill_of(rig, "dead_letters_grow")

        assert found["subject"] == "enter"
        assert "30 of its last 30 deliveries died: template_error 30" in found["message"]
        channel.announced("dead_letters_grow", "problem")
        assert "person" not in str([came.body for came, _ in channel.came])

        (rig.folder / "templates" / TEMPLATE).write_text(SHIPPED)
        assert rig.command("dlq", "replay", "--all", "--yes", "--wait").returncode == 0
        assert not rig.waiting()
        well(rig)
        channel.announced("dead_letters_grow", "problem", "problem_over")


def write_template(rig, text):
    (rig.folder / "templates" / TEMPLATE).write_text(text)
    time.sleep(EVERY_SECONDS)  # a drain that comes sooner does not look at its templates again


@pytest.mark.nightly
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

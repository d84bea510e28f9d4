"""Deliveries that die of a template are told, with their cause."""

from tests.journeys.health.staging import SHIPPED, TEMPLATE
from tests.journeys.judging import NAMED_SECONDS, entrances, ill_of, well
from tests.journeys.play import SHORT, Rig, send, start_worker
from tests.waiting import until


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

"""Deliveries that die or take long are told."""

from itertools import count

from tests.journeys.channel import Channel
from tests.journeys.health.staging import SHIPPED, TEMPLATE, again_and_again
from tests.journeys.judging import NAMED_SECONDS, entrances, ill_of, well
from tests.journeys.play import SHORT, Rig, publish, send, start_worker
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
        assert rig.command("dlq", "replay", "--all", "--yes").returncode == 0
        well(rig)
        channel.announced("dead_letters_grow", "problem", "problem_over")


def test_answers_that_take_long_are_told(tmp_path, channel):
    deadline = 'request_deadline = "20s"'
    with Rig(tmp_path, delivery_lines=deadline, more=channel.table()) as rig:
        start_worker(rig)
        well(rig)
        rig.sandbox.settings(latency_seconds=5.0)
        send(rig, entrances(400))

        found = ill_of(rig, "answers_slow")
        assert found["subject"] == "insider"
        assert "takes 5" in found["message"]
        channel.announced("answers_slow", "problem")

        rig.sandbox.settings(latency_seconds=0.0)
        people = count(1_000)  # whose answers make the mean of the last half minute short
        with again_and_again(lambda: publish(rig, entrances(1, next(people))), 0.1):
            well(rig)
        channel.announced("answers_slow", "problem", "problem_over")


def test_a_message_is_sent_once_by_two_workers_though_the_chat_fails_at_first(tmp_path):
    def answer(_):
        return (503, {}) if len(channel.came) < 2 else (200, {})

    with (
        Channel(answer) as channel,
        Rig(tmp_path, delivery_lines=SHORT, more=channel.table()) as rig,
    ):
        start_worker(rig)
        start_worker(rig)
        send(rig, entrances(50))
        rig.command("pause", "insider", "--reason", "maintenance")
        channel.announced("destination_paused", "problem")

        rig.command("resume", "insider", "--no-wait")
        channel.announced("destination_paused", "problem", "problem_over")
        assert len(channel.came) == 4

"""Answers that take long and a pause are told, once by all workers together."""

from tests.journeys.channel import Channel
from tests.journeys.judging import entrances, ill_of, well
from tests.journeys.play import SHORT, Rig, send, start_worker


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

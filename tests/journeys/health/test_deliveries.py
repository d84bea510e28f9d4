"""Deliveries that die or take long are told; a healthy load announces nothing."""

import time
from itertools import count

import orjson

from tests.journeys.channel import Channel
from tests.journeys.health.staging import MEMBERS, SHIPPED, SYNC, TEMPLATE
from tests.journeys.judging import NAMED_SECONDS, entrances, ill_of, well
from tests.journeys.play import SHORT, Rig, send, start_worker, status_of
from tests.nightly import amount
from tests.waiting import until

HEALTHY_SECONDS = amount(30, nightly=3_600)


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


def test_a_healthy_mixed_load_sends_no_message(tmp_path, channel, receiver):
    more = receiver.table() + SYNC.replace('"1s"', '"5s"') + channel.table()
    with Rig(tmp_path, delivery_lines=SHORT, more=more) as rig:
        rig.sandbox.post("lytics/profiles", MEMBERS)
        start_worker(rig)
        start_worker(rig)
        receiver.start(rig)
        ends_at = time.monotonic() + HEALTHY_SECONDS
        for turn in count():
            if time.monotonic() > ends_at:
                break
            if turn % 20 == 0:
                backfill(rig, turn)
            change = "exit" if turn % 2 == 0 else "enter"
            rig.sandbox.post("lytics/moves", [{"uid": "u7", "audience": "vip", "change": change}])
            send(rig, entrances(100, first=turn * 100, audience="newsletter"))
            assert receiver.post(entrances(1)) == 200
            assert channel.events() == []
            time.sleep(0.5)
        rig.wait_until_empty(60)
        well(rig)
        status = status_of(rig)

    assert channel.events() == []
    assert turn > 5
    assert (status["dead"], status["quarantined"]) == (0, 0)
    assert {one["state"] for one in status["jobs"].values()} == {"done"}


def backfill(rig, number):
    """Read a file of people into Redis, as a job of its own."""
    rows = rig.folder / f"rows-{number}.ndjson"
    people = (f"reader{number}-{one}@example.com" for one in range(1_000))
    rows.write_bytes(b"\n".join(orjson.dumps({"email": email}) for email in people))
    job = ("--audience", "newsletter", "--as-of", "now", "--name", f"load-{number}")
    done = rig.command("backfill", "start", str(rows), *job)
    assert done.returncode == 0, done.stderr

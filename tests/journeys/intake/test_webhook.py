"""Lytics' webhooks on the whole system: every documented form, while everything is killed."""

from tests.journeys.lytics_relay import PROCESSES, arrived, relaying
from tests.journeys.play import sent_twice


def test_what_lytics_was_answered_200_arrives_in_every_form_whatever_is_killed(tmp_path):
    with relaying(tmp_path) as relay:
        blows = [relay.kill_receiver, relay.kill_worker, relay.kill_redis]
        for blow in [*blows, *blows]:
            relay.move()
            blow()
        relay.move()

        status = arrived(relay, 90)
        assert all(job["omitted"] == 0 for job in relay.jobs())
        assert {code for job in relay.jobs() for code in job["by_status"]} <= {
            "200",
            "503",
            "no answer",
        }
        assert status["skipped_by_reason"]["duplicate"] > 0  # each was told in two forms
        assert sent_twice(relay.rig) <= PROCESSES * 4  # drains under way in what was killed

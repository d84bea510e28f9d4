"""`on_ambiguous = "dead_letter"` on the whole system: what is in doubt is never sent again."""

from segrelay.ops.demo.rig import kill_group
from tests.journeys.play import SHORT, Rig, invent, lines, send, sent_twice, start_worker, status_of
from tests.waiting import until

SLOW = {"latency_seconds": 1.5}
PERSON_DECIDES = 'on_ambiguous = "dead_letter"'


def intents(rig):
    """Return how many requests are under way or open."""
    return sum(rig.client.hlen(partition.intents) for partition in rig.partitions())


def test_a_worker_killed_in_mid_request_whose_trigger_is_paused_sends_nobody_twice(tmp_path):
    happened, _ = invent(1_200, 600, seed=11)
    entered = list({event.email: event for event in happened if not event.is_exit}.values())
    left = [event for event in happened if event.is_exit]
    with Rig(
        tmp_path, delivery_lines=SHORT, destination_lines=PERSON_DECIDES, sandbox_settings=SLOW
    ) as rig:
        send(rig, lines(entered))
        worker = start_worker(rig, "--concurrency=2")
        until(lambda: rig.sandbox.get("summary")["requests"]["total"] >= 2 and intents(rig), 20)
        kill_group(worker)
        assert rig.command("pause", "trigger:enter").returncode == 0

        rig.sandbox.settings(latency_seconds=0.02)
        for _ in range(2):
            start_worker(rig, "--concurrency=2")
        send(rig, lines(left))
        # Others work, and the killed worker's requests are forgotten: they can't take effect now.
        until(lambda: not intents(rig) and waits_only_for(rig, "enter"), 60)
        assert rig.command("resume", "trigger:enter", "--no-wait").returncode == 0
        rig.wait_until_empty(60)

        status = status_of(rig)
        assert set(status["dead_by_reason"]) == {"ambiguous"}
        assert sent_twice(rig) == 0
        assert status["triggers"]["enter"]["delivered"] > 0


def waits_only_for(rig, trigger):
    status = status_of(rig)
    return status["waiting"] == status["triggers"][trigger]["waiting"] > 0

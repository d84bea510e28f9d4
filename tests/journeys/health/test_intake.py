"""Syncs and the receiver: what is wrong with them is told until it is over."""

import os
import signal

import httpx

from ops.rig.rig import kill_group
from tests.journeys.health.staging import MEMBERS, SYNC
from tests.journeys.judging import WELL_SECONDS, entrances, glimpsed, ill_of, well
from tests.journeys.play import SHORT, Rig, start_worker
from tests.waiting import until


def test_a_sync_that_fails_is_told_with_its_reason(tmp_path, channel):
    with Rig(tmp_path, delivery_lines=SHORT, more=SYNC + channel.table()) as rig:
        rig.sandbox.post("lytics/profiles", MEMBERS)
        rig.sandbox.settings(lytics={"error_shares": {"401": 1.0}})
        start_worker(rig)

        found = ill_of(rig, "sync_fails")

        assert found["subject"] == "vips"
        assert found["command"] == "segrelay sync status vips"
        assert "401" in found["message"]
        channel.announced("sync_fails", "problem")
        rig.sandbox.settings(lytics={"error_shares": {}})
        assert rig.command("sync", "run", "vips").returncode == 0
        well(rig)
        channel.announced("sync_fails", "problem", "problem_over")


def test_a_sync_that_waits_for_a_person_is_told(tmp_path, channel):
    with Rig(tmp_path, delivery_lines=SHORT, more=SYNC + channel.table()) as rig:
        rig.sandbox.post("lytics/profiles", MEMBERS)
        start_worker(rig)
        until(lambda: len(rig.memberships()) == 300, 60)

        moves = [{"uid": f"u{n}", "audience": "vip", "change": "exit"} for n in range(200)]
        rig.sandbox.post("lytics/moves", moves)

        assert ill_of(rig, "sync_waits")["command"] == "segrelay sync confirm vips"
        channel.announced("sync_waits", "problem")
        assert rig.command("sync", "confirm", "vips").returncode == 0
        well(rig)
        channel.announced("sync_waits", "problem", "problem_over")


def test_a_secret_that_was_changed_at_one_end_only_is_told(tmp_path, channel, receiver):
    url = receiver.url
    with Rig(tmp_path, delivery_lines=SHORT, more=receiver.table() + channel.table()) as rig:
        start_worker(rig)
        process = receiver.start(rig)
        well(rig)

        assert receiver.post(entrances(1)) == 200
        for _ in range(5):
            receiver.post(entrances(1), "the-old-secret")
        assert "changed at one end only" in ill_of(rig, "receiver_unauthorized")["message"]
        assert httpx.get(f"{url}/readyz").status_code == 200
        until(
            lambda: httpx.get(f"{url}/readyz").json()["problems"] == ["receiver_unauthorized"], 20
        )

        channel.announced("receiver_unauthorized", "problem")
        assert receiver.post(entrances(1)) == 200
        well(rig)
        well_but_for(rig, set())
        channel.announced("receiver_unauthorized", "problem", "problem_over")
        kill_group(process)


def test_requests_that_are_too_large_are_told_until_the_limit_is_raised(
    tmp_path, channel, receiver
):
    limited = receiver.table(max_bytes=65536)
    with Rig(tmp_path, delivery_lines=SHORT, more=limited + channel.table()) as rig:
        start_worker(rig)
        process = receiver.start(rig)
        assert receiver.post(entrances(1)) == 200
        well(rig)

        assert receiver.post(entrances(1_000)) == 413
        assert "max_bytes" in ill_of(rig, "receiver_too_large")["command"]
        channel.announced("receiver_too_large", "problem")

        kill_group(process)
        source = rig.settings.source
        source.write_text(source.read_text().replace("max_bytes = 65536", "max_bytes = 2000000"))
        receiver.start(rig)
        assert receiver.post(entrances(1_000)) == 200
        well_but_for(rig, {"worker_configuration"})
        channel.announced("receiver_too_large", "problem", "problem_over")


def well_but_for(rig, names):
    """Wait until nothing else is wrong, worth a look or not."""
    until(lambda: glimpsed(rig, attention=True) <= names, WELL_SECONDS)


def test_a_receiver_that_stands_still_is_told_and_announces_nothing_when_it_wakes(
    tmp_path, channel, receiver
):
    with Rig(tmp_path, delivery_lines=SHORT, more=receiver.table() + channel.table()) as rig:
        start_worker(rig)
        process = rig.start_beside("serve")
        until(lambda: rig.client.exists("{segrelay}:receiver"), 60)

        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: "receiver_down" in glimpsed(rig), 60)
        channel.announced("receiver_down", "problem")
        os.kill(process.pid, signal.SIGCONT)

        until(lambda: "receiver_down" not in glimpsed(rig), 30)
        channel.announced("receiver_down", "problem", "problem_over")

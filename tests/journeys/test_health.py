"""Staged failures on the whole system: each is told until it is over, and announced twice at most.

`status --check` names it; one message says that it begins, and one that it is over.
"""

import os
import signal
import socket
import time
from itertools import count
from pathlib import Path

import httpx
import orjson
import pytest

import templates as shipped
from ops.rig.rig import free_port, kill_group
from tests.journeys.channel import Channel
from tests.journeys.judging import NAMED_SECONDS, WELL_SECONDS, entrances, glimpsed, ill_of, well
from tests.journeys.play import SHORT, Rig, send, start_worker, status_of, stop_worker
from tests.nightly import amount
from tests.waiting import until

RECEIVER = """
[producer.webhook]
listen = "127.0.0.1:PORT"
secret = "the-new-secret"
"""
METRICS = """
[metrics]
listen = "127.0.0.1:PORT"
"""
MEMBERS = [{"_uid": f"u{n}", "email": f"p{n}@example.com", "segments": ["vip"]} for n in range(300)]
HEALTHY_SECONDS = amount(30, nightly=3_600)
TEMPLATE = "insider/enter.jsonnet"
SHIPPED = (Path(shipped.__file__).parent / TEMPLATE).read_text()
SYNC = """
[lytics]
base_url = "SANDBOX"
token = "a-token-of-nobody"
[sync.vips]
audience = "vip"
every = "1s"
"""


@pytest.fixture
def channel():
    with Channel() as found:
        yield found


def test_no_worker_is_told_though_nothing_waits(tmp_path, channel):
    port = free_port()
    more = RECEIVER.replace("PORT", str(port)) + channel.table()
    with Rig(tmp_path, delivery_lines=SHORT, more=more) as rig:
        rig.start_beside("serve")
        assert ill_of(rig, "no_worker")["command"] == "segrelay up, or segrelay worker"

        channel.announced("no_worker", "problem")
        worker = start_worker(rig)
        well(rig)
        channel.announced("no_worker", "problem", "problem_over")

        stop_worker(worker)
        ill_of(rig, "no_worker")


def test_no_worker_and_no_redis_are_announced_where_only_the_metrics_run_beside(tmp_path, channel):
    more = METRICS.replace("PORT", str(free_port())) + channel.table()
    with Rig(tmp_path, delivery_lines=SHORT, more=more) as rig:
        rig.start_beside("metrics")
        channel.announced("no_worker", "problem")
        worker = start_worker(rig)
        channel.announced("no_worker", "problem", "problem_over")

        rig.kill_redis()
        channel.announced("redis_unreachable", "problem")
        rig.start_redis()
        well(rig)
        channel.announced("redis_unreachable", "problem", "problem_over")

        stop_worker(worker)
        begun, _ = channel.messages("redis_unreachable")
        assert begun["problem"]["subject"] == socket.gethostname()


def test_a_worker_alone_announces_that_it_has_lost_redis(tmp_path, channel):
    with Rig(tmp_path, delivery_lines=SHORT, more=channel.table()) as rig:
        start_worker(rig)
        start_worker(rig)
        well(rig)

        rig.kill_redis()
        channel.announced("redis_unreachable", "problem")
        rig.start_redis()
        well(rig)
        channel.announced("redis_unreachable", "problem", "problem_over")


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


def test_a_redis_that_comes_back_empty_is_told_until_it_is_acknowledged(tmp_path, channel):
    with Rig(tmp_path, delivery_lines=SHORT, more=channel.table()) as rig:
        start_worker(rig)
        send(rig, entrances(5))
        rig.wait_until_empty(NAMED_SECONDS)
        until(lambda: rig.client.exists("{segrelay}:birth"), NAMED_SECONDS)
        well(rig)

        rig.kill_redis()
        for file in rig.settings.redis.data_dir.rglob("appendonly*"):
            if file.is_file():
                file.unlink()
        rig.start_redis()
        found = ill_of(rig, "redis_emptied")

        assert "vip" in found["message"]
        assert rig.client.get("{segrelay}:partitions") is not None
        channel.announced("redis_emptied", "problem")
        assert rig.command("redis", "acknowledge").returncode == 0
        well(rig)
        channel.announced("redis_emptied", "problem", "problem_over")


def test_a_full_redis_is_told(tmp_path, channel):
    with Rig(tmp_path, delivery_lines=SHORT, more=channel.table()) as rig:
        start_worker(rig)
        well(rig)

        rig.client.config_set("maxmemory", rig.client.info("memory")["used_memory"])
        ill_of(rig, "redis_full")
        channel.announced("redis_full", "problem")

        rig.client.config_set("maxmemory", 0)
        well(rig)
        channel.announced("redis_full", "problem", "problem_over")


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


def test_a_secret_that_was_changed_at_one_end_only_is_told(tmp_path, channel):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    more = RECEIVER.replace("PORT", str(port)) + channel.table()
    with Rig(tmp_path, delivery_lines=SHORT, more=more) as rig:
        start_worker(rig)
        receiver = rig.start_beside("serve")
        until(lambda: answers(url), 60)
        well(rig)

        assert post(url, "the-new-secret") == 200
        for _ in range(5):
            post(url, "the-old-secret")
        assert "changed at one end only" in ill_of(rig, "receiver_unauthorized")["message"]
        assert httpx.get(f"{url}/readyz").status_code == 200
        until(
            lambda: httpx.get(f"{url}/readyz").json()["problems"] == ["receiver_unauthorized"], 20
        )

        channel.announced("receiver_unauthorized", "problem")
        assert post(url, "the-new-secret") == 200
        well(rig)
        well_but_for(rig, set())
        channel.announced("receiver_unauthorized", "problem", "problem_over")
        kill_group(receiver)


def test_requests_that_are_too_large_are_told_until_the_limit_is_raised(tmp_path, channel):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    limited = RECEIVER.replace("PORT", str(port)) + "max_bytes = 65536\n"
    with Rig(tmp_path, delivery_lines=SHORT, more=limited + channel.table()) as rig:
        start_worker(rig)
        receiver = rig.start_beside("serve")
        until(lambda: answers(url), 60)
        assert post(url, "the-new-secret") == 200
        well(rig)

        assert post(url, "the-new-secret", people=1_000) == 413
        assert "max_bytes" in ill_of(rig, "receiver_too_large")["command"]
        channel.announced("receiver_too_large", "problem")

        kill_group(receiver)
        source = rig.settings.source
        source.write_text(source.read_text().replace("max_bytes = 65536", "max_bytes = 2000000"))
        rig.start_beside("serve")
        until(lambda: answers(url), 60)
        assert post(url, "the-new-secret", people=1_000) == 200
        well_but_for(rig, {"worker_configuration"})
        channel.announced("receiver_too_large", "problem", "problem_over")


def well_but_for(rig, names):
    """Wait until nothing else is wrong, worth a look or not."""
    until(lambda: glimpsed(rig, attention=True) <= names, WELL_SECONDS)


def test_a_receiver_tells_that_redis_came_back_empty_though_no_worker_runs(tmp_path):
    port = free_port()
    with Rig(tmp_path, delivery_lines=SHORT, more=RECEIVER.replace("PORT", str(port))) as rig:
        rig.start_beside("serve")
        until(lambda: rig.client.exists("{segrelay}:birth"), 60)
        until(lambda: rig.client.exists("{segrelay}:receiver"), 60)

        rig.client.flushall()

        assert "came back empty" in ill_of(rig, "redis_emptied")["message"]


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


def test_a_receiver_that_stands_still_is_told_and_announces_nothing_when_it_wakes(
    tmp_path, channel
):
    port = free_port()
    more = RECEIVER.replace("PORT", str(port)) + channel.table()
    with Rig(tmp_path, delivery_lines=SHORT, more=more) as rig:
        start_worker(rig)
        receiver = rig.start_beside("serve")
        until(lambda: rig.client.exists("{segrelay}:receiver"), 60)

        os.kill(receiver.pid, signal.SIGSTOP)
        until(lambda: "receiver_down" in glimpsed(rig), 60)
        channel.announced("receiver_down", "problem")
        os.kill(receiver.pid, signal.SIGCONT)

        until(lambda: "receiver_down" not in glimpsed(rig), 30)
        channel.announced("receiver_down", "problem", "problem_over")


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


def test_a_healthy_mixed_load_sends_no_message(tmp_path, channel):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    more = RECEIVER.replace("PORT", str(port)) + SYNC.replace('"1s"', '"5s"') + channel.table()
    with Rig(tmp_path, delivery_lines=SHORT, more=more) as rig:
        rig.sandbox.post("lytics/profiles", MEMBERS)
        start_worker(rig)
        start_worker(rig)
        rig.start_beside("serve")
        until(lambda: answers(url), 60)
        ends_at = time.monotonic() + HEALTHY_SECONDS
        for turn in count():
            if time.monotonic() > ends_at:
                break
            if turn % 20 == 0:
                backfill(rig, turn)
            change = "exit" if turn % 2 == 0 else "enter"
            rig.sandbox.post("lytics/moves", [{"uid": "u7", "audience": "vip", "change": change}])
            send(rig, entrances(100, first=turn * 100, audience="newsletter"))
            assert post(url, "the-new-secret") == 200
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


def answers(url):
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


def post(url, secret, people=1):
    headers = {"X-Segrelay-Secret": secret}
    return httpx.post(f"{url}/v1/lytics", content=entrances(people), headers=headers).status_code

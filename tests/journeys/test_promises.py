"""The promises, on the whole system: `segrelay send`, Redis, workers, the sandbox."""

import random
import time

from ops.invented import truth
from ops.rig import Rig, kill_group
from tests.journeys.play import (
    PATH_OF_EXITS,
    SHORT,
    await_ready,
    invent,
    lines,
    nothing_is_wrong,
    send,
    sent_twice,
    start_worker,
    status_of,
    stop_worker,
    watched,
)
from tests.waiting import until

LATENCY = {"latency_seconds": 0.02}


def test_the_newest_events_hold_and_large_requests_carry_them(tmp_path):
    happened, sent = invent(20_000, 3_000)
    with Rig(tmp_path, sandbox_settings=LATENCY) as rig, watched(rig):
        start_worker(rig)

        report = send(rig, lines(sent))
        rig.wait_until_empty(60)

        status = nothing_is_wrong(rig, happened)
        requests = rig.sandbox.get("summary")["requests"]["total"]
        assert report["accepted"] == status["accepted"] > 20_000
        assert requests <= status["delivered"] / 20
        assert rig.sandbox.get("overlaps")["total"] == 0
        assert sent_twice(rig) == 0


def test_five_kills_lose_nothing_and_double_only_what_was_in_flight(tmp_path):
    happened, sent = invent(20_000, 3_000, seed=2)
    rng = random.Random(2)
    parts = [sent[at::6] for at in range(6)]
    with Rig(tmp_path, sandbox_settings=LATENCY, delivery_lines=SHORT) as rig, watched(rig):
        worker = start_worker(rig, "--concurrency=2")
        for part in parts[:5]:
            before = status_of(rig)["delivered"]
            send(rig, lines(part))
            until(lambda before=before: status_of(rig)["delivered"] > before, 20)
            time.sleep(rng.uniform(0, 0.2))
            kill_group(worker)
            worker = start_worker(rig, "--concurrency=2")
        send(rig, lines(parts[5]))
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)
        drains, requests_of_a_drain = 2, rig.settings.delivery.in_flight
        assert sent_twice(rig) <= 5 * drains * requests_of_a_drain


def test_one_refused_person_costs_nobody_else_anything(tmp_path):
    happened, _ = invent(3_000, 1_000, seed=3)
    first_of = {event.email: event for event in happened if not event.is_exit}
    entered = list(first_of.values())
    refused = {"poison": entered[len(entered) // 2].email + '"', "poison_status": 200}
    with Rig(tmp_path, sandbox_settings=refused) as rig:
        send(rig, lines(entered))
        start_worker(rig)
        rig.wait_until_empty(30)

        status = status_of(rig)
        assert (status["dead"], status["delivered"]) == (1, len(entered) - 1)
        assert status["dead_by_reason"] == {"refused": 1}
        assert len(rig.memberships()) == len(entered) - 1
        assert rig.sandbox.get("summary")["requests"]["total"] <= 2 * len(rig.partitions())


def test_the_limit_is_used_and_not_broken(tmp_path):
    happened, sent = invent(4_000, 4_000, seed=4)
    strict = {"limit_per_minute": 22, "window_seconds": 10.0}
    with Rig(tmp_path, rate="120/min", sandbox_settings=strict) as rig:
        send(rig, lines(sent))
        start_worker(rig)
        begun = until(lambda: rig.sandbox.get("summary")["requests"]["total"], 20)
        at = time.monotonic()
        until(lambda: rig.sandbox.get("summary")["requests"]["total"] >= begun + 30, 40)
        seconds = time.monotonic() - at
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)
        summary = rig.sandbox.get("summary")
        assert summary["limit"]["limited"] == 0
        assert summary["limit"]["highest_admitted"] <= 22
        assert 30 / seconds >= 0.9 * 2


def test_an_orderly_stop_takes_less_than_5_seconds_and_sends_nothing_twice(tmp_path):
    happened, sent = invent(20_000, 5_000, seed=5)
    parts = [sent[at::20] for at in range(20)]
    with Rig(tmp_path, sandbox_settings=LATENCY) as rig, watched(rig):
        worker = start_worker(rig, "--concurrency=2")
        stops = []
        for part in parts:
            following = rig.start_worker("--concurrency=2")
            send(rig, lines(part))
            await_ready(rig, following)
            stops.append(stop_worker(worker))
            worker = following
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)
        assert [code for code, _ in stops] == [0] * 20
        assert max(seconds for _, seconds in stops) < 5
        assert sent_twice(rig) == 0


def test_a_paused_trigger_blocks_no_other(tmp_path):
    happened, sent = invent(5_000, 1_000, seed=6)
    with Rig(tmp_path) as rig:
        assert rig.command("pause", "trigger:exit-event").returncode == 0
        send(rig, lines(sent))
        start_worker(rig)

        until(lambda: status_of(rig)["waiting"] == waiting_of(rig, "exit-event"), 40)

        paused = status_of(rig)["triggers"]["exit-event"]
        assert paused["waiting"] == paused["accepted"] > 0
        assert rig.memberships() == truth(happened)
        assert rig.command("resume", "trigger:exit-event").returncode == 0
        rig.wait_until_empty(30)
        nothing_is_wrong(rig, happened)


def waiting_of(rig, trigger):
    return status_of(rig)["triggers"][trigger]["waiting"]


def test_an_outage_makes_no_dead_letter(tmp_path):
    happened, sent = invent(5_000, 1_000, seed=7)
    with Rig(tmp_path, delivery_lines=SHORT) as rig, watched(rig):
        rig.sandbox.settings(failures=[{"status": 503}])
        start_worker(rig)
        send(rig, lines(sent))
        until(lambda: status_of(rig)["destinations"]["insider"]["state"] == "broken", 20)
        time.sleep(5)
        tried = rig.sandbox.get("summary")["requests"]["total"]

        rig.sandbox.settings(failures=[])
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)
        assert tried < 60


def test_a_trigger_that_always_fails_holds_up_no_other(tmp_path):
    happened, sent = invent(10_000, 5_000, seed=8)
    failing = [{"status": 500, "path": PATH_OF_EXITS}]
    with Rig(
        tmp_path, delivery_lines=SHORT, sandbox_settings=LATENCY | {"failures": failing}
    ) as rig:
        send(rig, lines(sent))
        start_worker(rig)

        # What happened to the people of a failed request waits until that can't take effect.
        until(lambda: not waiting_of(rig, "enter") + waiting_of(rig, "exit-event"), 40)

        assert status_of(rig)["dead"] == 0
        assert waiting_of(rig, "exit") > 0
        rig.sandbox.settings(failures=[])
        assert rig.command("resume", "--all").returncode == 0
        rig.wait_until_empty(60)
        nothing_is_wrong(rig, happened)


def test_a_full_redis_says_so_and_works_itself_empty(tmp_path):
    happened, sent = invent(12_000, 3_000, seed=9)
    accepted = []
    with Rig(tmp_path, max_memory="12mb") as rig:
        refusal = None
        for at in range(0, len(sent), 1_000):
            part = lines(sent[at : at + 1_000], profile_bytes=2_000)
            answer = rig.command("send", "-", "--json", "--timeout", "2s", given=part)
            if answer.returncode:
                refusal = answer.stderr.decode()
                break
            accepted += sent[at : at + 1_000]
        assert refusal is not None
        assert "full" in refusal.lower()
        assert "Traceback" not in refusal
        before = status_of(rig)
        assert before["accepted"] == before["waiting"] >= len(accepted)

        start_worker(rig)
        rig.wait_until_empty(60)
        for at in range(len(accepted), len(sent), 1_000):
            send(rig, lines(sent[at : at + 1_000], profile_bytes=2_000))
            rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)


def test_redis_killed_20_times_delivers_within_10_seconds_of_each(tmp_path):
    happened, sent = invent(10_000, 2_500, seed=10)
    parts = [sent[at::21] for at in range(21)]
    with Rig(tmp_path, delivery_lines=SHORT) as rig, watched(rig):
        start_worker(rig)
        for part in parts[:20]:
            rig.kill_redis()
            rig.start_redis()
            at = time.monotonic()
            before = status_of(rig)["delivered"]
            send(rig, lines(part))
            until(lambda before=before: status_of(rig)["delivered"] > before, 10)
            assert time.monotonic() - at < 10
        send(rig, lines(parts[20]))
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)

"""The promises, on the whole system: `segrelay send`, Redis, workers, the sandbox."""

import random
import time

import pytest

from segrelay.ops.demo.rig import kill_group
from segrelay.sandbox.people import truth
from tests.journeys.play import (
    PATH_OF_EXITS,
    SHORT,
    Rig,
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
from tests.nightly import amount
from tests.waiting import allowed, until

LATENCY = {"latency_seconds": 0.02}
EVENTS = amount(2_000, nightly=20_000)
FEWER = amount(1_200, nightly=20_000)
"""Where a process ends amid them, and their number shows nothing more."""
KILLS = amount(2, nightly=20)
STOPS = amount(2, nightly=20)
REDIS_KILLS = amount(2, nightly=20)


def test_the_newest_events_hold_and_large_requests_carry_them(tmp_path):
    happened, sent = invent(EVENTS, EVENTS * 3 // 20)
    with Rig(tmp_path, sandbox_settings=LATENCY) as rig, watched(rig):
        start_worker(rig)

        report = send(rig, lines(sent))
        rig.wait_until_empty(60)

        status = nothing_is_wrong(rig, happened)
        requests = rig.sandbox.get("summary")["requests"]["total"]
        assert report["accepted"] == status["accepted"] > EVENTS
        assert requests <= status["delivered"] / 10
        assert rig.sandbox.get("overlaps")["total"] == 0
        assert sent_twice(rig) == 0


def test_kills_lose_nothing_and_double_only_what_was_in_flight(tmp_path):
    happened, sent = invent(FEWER, FEWER * 3 // 20, seed=2)
    rng = random.Random(2)
    parts = [sent[at :: KILLS + 1] for at in range(KILLS + 1)]
    with Rig(tmp_path, sandbox_settings=LATENCY, delivery_lines=SHORT) as rig, watched(rig):
        worker = start_worker(rig, "--concurrency=2")
        for part in parts[:KILLS]:
            before = status_of(rig)["delivered"]
            send(rig, lines(part))
            until(lambda before=before: status_of(rig)["delivered"] > before, 20)
            time.sleep(rng.uniform(0, 0.2))
            kill_group(worker)
            worker = start_worker(rig, "--concurrency=2")
        send(rig, lines(parts[KILLS]))
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)
        drains, requests_of_a_drain = 2, rig.settings.delivery.in_flight
        assert sent_twice(rig) <= KILLS * drains * requests_of_a_drain


def test_an_orderly_stop_takes_less_than_5_seconds_and_sends_nothing_twice(tmp_path):
    happened, sent = invent(FEWER, FEWER // 4, seed=5)
    parts = [sent[at::STOPS] for at in range(STOPS)]
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
        assert [code for code, _ in stops] == [0] * STOPS
        assert max(seconds for _, seconds in stops) < allowed(5)
        assert sent_twice(rig) == 0


@pytest.mark.nightly
def test_a_paused_trigger_blocks_no_other(tmp_path):
    happened, sent = invent(amount(1_000, nightly=5_000), amount(500, nightly=1_000), seed=6)
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


@pytest.mark.nightly
def test_a_trigger_that_always_fails_holds_up_no_other(tmp_path):
    happened, sent = invent(FEWER // 2, FEWER // 4, seed=8)
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


@pytest.mark.nightly
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


def test_a_killed_redis_delivers_within_10_seconds_each_time(tmp_path):
    happened, sent = invent(FEWER // 2, FEWER // 8, seed=10)
    parts = [sent[at :: REDIS_KILLS + 1] for at in range(REDIS_KILLS + 1)]
    with Rig(tmp_path, delivery_lines=SHORT) as rig, watched(rig):
        start_worker(rig)
        for part in parts[:REDIS_KILLS]:
            rig.kill_redis()
            rig.start_redis()
            before = status_of(rig)["delivered"]
            send(rig, lines(part))
            until(lambda before=before: status_of(rig)["delivered"] > before, allowed(10))
        send(rig, lines(parts[REDIS_KILLS]))
        rig.wait_until_empty(60)

        nothing_is_wrong(rig, happened)

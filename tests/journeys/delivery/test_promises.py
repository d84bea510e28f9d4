"""The promises, on the whole system: `segrelay send`, Redis, workers, the sandbox."""

import random
import time

from tests.integration.ops.outcomes.counting import counted, counts_of, rows_of
from tests.journeys.play import (
    SHORT,
    Rig,
    await_ready,
    invent,
    lines,
    nothing_is_wrong,
    run,
    send,
    sent_twice,
    start_worker,
    status_of,
    stop_worker,
    watched,
)
from tests.nightly import amount
from tests.rig import kill_group
from tests.waiting import allowed, until

LATENCY = {"latency_seconds": 0.02}
EVENTS = amount(2_000, nightly=20_000)
FEWER = amount(1_200, nightly=20_000)
"""Where a process ends amid them, and their number shows nothing more."""
KILLS = amount(2, nightly=20)
STOPS = amount(2, nightly=20)


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
    """Each end of a delivery leaves in exactly one row as well."""
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

        status = nothing_is_wrong(rig, happened)
        rows = exported(rig)
        assert len({row["id"] for row in rows}) == len(rows)
        assert counted(rows) == counts_of(status)
        drains, requests_of_a_drain = 2, rig.settings.delivery.in_flight
        assert sent_twice(rig) <= KILLS * drains * requests_of_a_drain


def exported(rig):
    """Return the rows of all outcomes, as a warehouse gets them."""
    file = rig.folder / "outcomes.ndjson"
    run(rig, "outcomes", "export", str(file), "--cursor", "warehouse")
    return rows_of(file)


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

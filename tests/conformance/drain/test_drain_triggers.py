"""A trigger of which nothing can be sent: it is not read, not rendered, and wakes nobody."""

import pytest

from segrelay.worker.batch.partition import BATCH_ENTRIES, Hold
from segrelay.worker.batch.read import PREVIEW_ENTRIES
from tests.conformance.drain.fake_insider import Reply, Sending, failed, taken
from tests.conformance.drain.world import event, members

BACKLOG = 2_200


def exits_fail(sending: Sending) -> Reply:
    return failed(500) if sending.url.endswith("delete") else taken(sending)


@pytest.mark.parametrize("lane", ["live", "backfill"])
def test_a_failing_trigger_with_a_backlog_holds_up_no_other(make_world, lane: str) -> None:
    world = make_world(exits_fail)
    world.put(*(event(f"p{n}", "vip", "exit", lane=lane) for n in range(BACKLOG)))
    waited = []
    for second in range(80):
        if second % 10 == 5:
            world.put(event(f"new{second}"))
            put_at = world.loop.time()
        world.drain()
        newest = f"new{second - (second - 5) % 10}@example.com"
        if newest in members(world) and len(waited) < len(members(world)):
            waited.append(world.loop.time() - put_at)
        world.pass_seconds(1.0)

    assert len(waited) == world.count("delivered") == 8
    assert max(waited) <= 3.0
    tries = sum(s.url.endswith("delete") for s in world.sendings)
    assert tries <= 20
    assert world.rendered["exit"] <= BATCH_ENTRIES + PREVIEW_ENTRIES * tries
    assert world.count("dead") == 0


def test_what_stands_behind_a_closed_gate_is_not_rendered_and_rings_nobody(make_world) -> None:
    world = make_world(exits_fail)
    world.run(world.fail_elsewhere("exit"))
    world.put(*(event(f"p{n}", "vip", "exit") for n in range(300)))

    assert world.drain()[1] == ""
    world.put(event("ada"))
    tally, wake = world.drain()

    assert (tally.delivered, tally.requests, wake) == (1, 1, "")
    assert world.rendered == {"enter": 1}


def test_live_work_that_waits_does_not_make_the_rest_ring_as_live(make_world) -> None:
    world = make_world()
    world.put(event("ada", "vip", "exit"), event("bob", lane="backfill"))

    before = world.due("exit")
    world.store.put_hold("backfill|enter", Hold("9999999999999-0", world.now_ms() + 5_000))

    assert (before, world.due("exit")) == ("backfill", "")


def test_a_paused_job_is_neither_read_nor_rung_for(make_world) -> None:
    world = make_world()
    world.put(event("ada", lane="job.load"), event("bob", lane="job.other"), event("eve"))
    world.paused["job.load"] = "by hand"

    world.drain_until_nothing_is_left(seconds=5)

    assert members(world) == {"bob@example.com", "eve@example.com"}
    assert world.store.waiting() == 1
    assert world.store.wakeup == ""
    world.paused.clear()
    world.drain_until_nothing_is_left()
    assert members(world) == {"ada@example.com", "bob@example.com", "eve@example.com"}


def test_of_a_trigger_that_is_tried_a_few_are_rendered(make_world) -> None:
    world = make_world(exits_fail)
    world.put(*(event(f"p{n}", "vip", "exit") for n in range(1_000)))
    world.drain()
    before = world.rendered["exit"]

    for _ in range(5):
        world.pass_seconds(400)
        world.drain()

    assert world.rendered["exit"] - before <= 5 * 100
    world.responds = taken
    world.drain_until_nothing_is_left()
    assert world.count("delivered") == 1_000

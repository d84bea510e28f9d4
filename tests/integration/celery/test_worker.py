"""A real worker: what it drains, in which order, how it ends, what it survives."""

import os
import select
import signal
import socket
from collections import Counter
from functools import partial

import pytest

from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import QUEUES, RETENTION_TASK, queue_name
from segrelay.worker.contract.own_processes import processors
from segrelay.worker.core.rounds import WakeUp
from tests.integration.celery.nodes import Node, live, send
from tests.waiting import allowed, patient, until


def test_two_processes_a_core_and_two_more_are_built_and_a_supervisor_hears_that_it_sweeps(
    configuration, tmp_path
):
    def processes():
        return len({row["pid"] for row in node.events("drains.built")})

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(allowed(10))
        with Node(configuration, supervisor=tmp_path / "notify") as node:
            wanted = 2 * processors() + 2
            until(lambda: processes() >= wanted)
            heard = [supervisor.recv(100) for _ in range(3)]
            os.kill(node.process.pid, signal.SIGSTOP)
            while select.select([supervisor], [], [], 0)[0]:
                supervisor.recv(100)
            supervisor.settimeout(3)
            while_it_stands = []
            try:
                while len(while_it_stands) < 3:
                    while_it_stands.append(supervisor.recv(100))
            except TimeoutError:
                pass
            os.kill(node.process.pid, signal.SIGCONT)

    assert processes() == wanted
    assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert len(while_it_stands) <= 1


def test_live_messages_are_taken_before_backfill(configuration, broker, app):
    partitions = range(6)
    send(app, *(WakeUp("backfill", "one", p) for p in partitions), *live("two", *partitions))

    with Node(configuration, "--concurrency=1"):
        until(lambda: len(broker.drained()) == 12)

    destinations = [row["destination"] for row in broker.drained()]
    assert destinations[1:7].count("two") >= 5


def test_a_background_job_gets_its_turn_while_drains_of_backfills_take_all_permits(
    configuration, broker, app
):
    busy = {"seconds": 1, "again": "backfill"}
    with Node(configuration, "--concurrency=3", behaviour=busy) as node:
        send(app, *(WakeUp("backfill", name, p) for name in ("one", "two") for p in range(6)))
        until(lambda: len(node.events("drain.began")) >= 4)

        app.send_task(RETENTION_TASK, args=["retention"], queue=queue_name("backfill"))

        until(lambda: broker.client.hexists(keys.RETENTION, "next"), allowed(15))


def test_one_process_stays_free_of_any_one_destination(configuration, broker, app):
    with Node(configuration, "--concurrency=3", behaviour={"seconds": patient(0.5)}) as node:
        send(app, *live("one", *range(12)))
        until(lambda: len(node.events("drain.began")) >= 2)
        send(app, *live("two", 1))
        until(lambda: len(broker.drained()) == 13)

    rows = sorted(broker.drained(), key=lambda row: row["began"])
    assert rows[-1]["destination"] == "one"  # those that both other processes began before it
    assert most_at_once(row for row in rows if row["destination"] == "one") == 2


def test_all_partitions_of_a_busy_destination_get_their_turn(configuration, broker, app):
    def fewest_turns():
        # While the node stands still, its processes go on with the partitions that they have.
        turns = Counter(row["partition"] for row in broker.drained()[:160])
        return min(turns[partition] for partition in range(8))

    with Node(configuration, "--concurrency=3", behaviour={"seconds": 0.1, "again": "live"}):
        send(app, *live("one", *range(8)))
        until(lambda: fewest_turns() >= 6)


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [({"on_13": "die"}, "exited with"), ({"on_13": "hang", "limit": 3}, "Hard time limit")],
)
def test_a_process_that_is_killed_or_hangs_leaves_its_slot(
    configuration, broker, app, behaviour, says
):
    with Node(configuration, "--concurrency=2", behaviour=behaviour) as node:
        send(app, *live("one", 13))
        # What Celery hands to a process that is being killed is lost with it; for work that waits
        # the sweep sends another, which nothing does here.
        until(lambda: says in node.log and "exited with 'signal 9" in node.log)
        send(app, *live("one", 1))
        rows = until(broker.drained)

    assert rows[0]["partition"] == 1


@pytest.mark.parametrize("tell", [os.kill, os.killpg], ids=["the node", "all its processes"])
def test_told_to_stop_it_ends_within_5_seconds_with_code_0(configuration, broker, app, tell):
    with Node(configuration, "--concurrency=3", behaviour={"seconds": 30, "again": "live"}) as node:
        send(app, *live("one", *range(8)))
        until(lambda: len(node.events("drain.began")) == 2)
        code, seconds = node.stop(tell)

    assert code == 0
    assert seconds < allowed(5)
    told = [row["told"] for row in broker.drained()]
    assert len(told) >= 2  # another one may have begun in the last moment
    assert all(told)


def test_what_hangs_does_not_keep_it_from_ending(configuration, app):
    with Node(configuration, "--concurrency=2", behaviour={"on_13": "hang"}) as node:
        send(app, *live("one", 13))
        until(lambda: node.events("drain.began"))
        code, seconds = node.stop()

    assert code == 1
    assert seconds < allowed(10)
    assert node.events("worker.ended_at_once")[0]["drains_ended"] is False


def test_a_bug_is_told_without_the_message_that_may_hold_a_profile(configuration, app):
    with Node(configuration, "--concurrency=1", behaviour={"on_13": "bug"}) as node:
        send(app, *live("one", 13))
        failed = until(lambda: node.events("drain.failed"))

    assert failed[0]["message"].startswith("ValueError at ")
    assert "somebody@example.com" not in node.log


def test_a_worker_that_rings_in_vain_ends_itself(configuration, broker, app):
    with Node(configuration, "--concurrency=2", silence=3.0) as node:
        for queue in QUEUES:
            until(partial(app.control.cancel_consumer, queue, reply=True, timeout=2))
        broker.put_work(("one", 1))
        code = node.process.wait(120)

    assert code != 0
    assert node.events("worker.broken")


def most_at_once(rows):
    """Return how many drains ran at the same time at most."""
    steps = sorted(step for row in rows for step in ((row["began"], 1), (row["ended"] - 0.001, -1)))
    running, most = 0, 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most

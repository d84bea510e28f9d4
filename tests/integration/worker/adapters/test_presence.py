"""Which processes are seen in a real Redis."""

import os

from segrelay.worker.adapters.redis.survey import RedisPresence
from segrelay.worker.contract import keys
from segrelay.worker.contract.processes import (
    LIFE_MS,
    WORKER,
    WORKER_ENDED,
    Process,
    read_processes,
    read_seen,
)
from segrelay.worker.contract.redis.connection import now_ms


class Node:
    """A worker whose clock a test moves."""

    def __init__(self, client, config="aaa"):
        self.now = 100.0
        self.stopped = {}
        self.presence = RedisPresence(
            client,
            config,
            clock=lambda: self.now,
            about=lambda: {"stopped": self.stopped},
        )


def test_a_worker_is_seen_with_its_configuration(client):
    Node(client).presence.announce()

    (found,) = read_processes(client)
    assert (found.pid, found.kind, found.config) == (os.getpid(), "worker", "aaa")
    assert 0 <= now_ms(client) - read_seen(client)["worker"] < 5_000
    assert 0 <= now_ms(client) - found.begun_ms < 5_000


def test_who_was_seen_by_a_clock_that_was_set_back_is_forgotten(client):
    seconds, _ = client.time()
    gone = Process("elsewhere", 1, "worker", "aaa").dumps()
    client.zadd(keys.PROCESSES, {gone: (seconds + 3600) * 1_000_000})

    Node(client).presence.announce()

    assert [process.pid for process in read_processes(client)] == [os.getpid()]


def test_who_has_not_been_seen_for_long_is_gone_and_is_forgotten(client):
    seconds, _ = client.time()
    silent = Process("elsewhere", 7, "worker", "aaa")
    client.zadd(keys.PROCESSES, {silent.dumps(): (seconds * 1000 - 2 * LIFE_MS) * 1000})

    before = read_processes(client)
    Node(client).presence.announce()

    assert before == []
    assert client.zcard(keys.PROCESSES) == 1
    assert 0 < client.pttl(keys.PROCESSES) <= LIFE_MS


def test_a_worker_that_ends_leaves_nothing_behind(client):
    node = Node(client)
    for number in range(20):
        node.stopped["vip-enter"] = str(number)
        node.presence.announce()
        node.now += 3.1

    (found,) = read_processes(client)
    node.presence.leave()

    assert found.stopped == {"vip-enter": "19"}
    assert read_processes(client) == []
    seen = read_seen(client)
    assert seen[WORKER_ENDED] >= seen[WORKER] > 0


def test_a_change_of_the_template_files_is_passed_on_twice(client):
    now, files, changes = [100.0], {"enter.jsonnet": "aa"}, []
    presence = RedisPresence(
        client,
        "aaa",
        clock=lambda: now[0],
        files=lambda: files,
        files_changed=lambda: changes.append(now[0]),
    )
    for _ in range(4):
        presence.announce()
        now[0] += 3
    changes.clear()

    files["enter.jsonnet"] = "bb"
    for _ in range(4):
        presence.announce()
        now[0] += 3

    assert changes == [112.0, 115.0]

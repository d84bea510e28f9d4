"""Which processes are seen in a real Redis."""

import os

import pytest

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

    def __init__(self, client, **options):
        self.now = 100.0
        self.stopped = {}
        about = {"about": lambda: {"stopped": self.stopped}}
        self.presence = RedisPresence(client, "aaa", clock=lambda: self.now, **about, **options)

    def announce(self, times=1):
        for _ in range(times):
            self.presence.announce()
            self.now += 3


@pytest.mark.parametrize("ago_ms", [2 * LIFE_MS, -3_600_000], ids=["long ago", "clock set back"])
def test_who_was_seen_long_ago_or_by_a_clock_that_was_set_back_is_forgotten(client, ago_ms):
    silent = Process("elsewhere", 7, "worker", "aaa")
    client.zadd(keys.PROCESSES, {silent.dumps(): (now_ms(client) - ago_ms) * 1000})
    assert read_processes(client) == []

    Node(client).announce()

    assert [process.pid for process in read_processes(client)] == [os.getpid()]
    assert ago_ms < 0 or client.zcard(keys.PROCESSES) == 1
    assert 0 < client.pttl(keys.PROCESSES) <= LIFE_MS


def test_a_worker_is_seen_with_its_configuration_and_leaves_nothing_behind(client):
    node = Node(client)
    for number in range(20):
        node.stopped["vip-enter"] = str(number)
        node.announce()

    (found,) = read_processes(client)
    seen_at = read_seen(client)[WORKER]
    node.presence.leave()

    assert (found.pid, found.kind, found.config) == (os.getpid(), "worker", "aaa")
    assert found.stopped == {"vip-enter": "19"}
    assert 0 <= now_ms(client) - seen_at < 30_000
    assert 0 <= now_ms(client) - found.begun_ms < 30_000
    assert read_processes(client) == []
    seen = read_seen(client)
    assert seen[WORKER_ENDED] >= seen[WORKER] == seen_at


def test_a_change_of_the_template_files_is_passed_on_twice(client):
    files, changes = {"enter.jsonnet": "aa"}, []
    node = Node(client, files=lambda: files, files_changed=lambda: changes.append(node.now))
    node.announce(4)
    changes.clear()

    files["enter.jsonnet"] = "bb"
    node.announce(4)

    assert changes == [112.0, 115.0]

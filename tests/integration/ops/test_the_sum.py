"""The sum of all counts, looked at while all of it changes."""

import threading
from contextlib import closing

import pytest

from segrelay.ops.status.command import read_status
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from tests.integration.ops.relay import assert_sum, payload


@pytest.fixture
def watched(relay, redis_url):
    """Look at the status again and again, from a thread of its own."""
    ended = threading.Event()
    seen = []

    def look(client: Redis):
        while not ended.is_set():
            seen.append(read_status(client, relay.settings))

    with closing(connect(redis_url)) as client:
        thread = threading.Thread(target=look, args=(client,))
        thread.start()
        try:
            yield seen
        finally:
            ended.set()
            thread.join()


def test_the_sum_holds_at_every_moment(relay, sandbox, watched, call):
    sandbox.settings(poison="poisoned", poison_status=200)
    for minute in range(3):
        relay.deliver(
            *(payload(f"p{n}@example.com", minute=minute, status="fine") for n in range(100)),
            *(payload(f"q{n}@example.com", minute=minute, status="poisoned") for n in range(20)),
            job="load",
        )
        call("dlq", "replay", "--all", "--yes")
        call("discard", "--job", "load", "--audience", "vip", "--yes")
        relay.publish(*(payload(f"p{n}@example.com", minute=minute) for n in range(20)))

    assert len(watched) > 10
    for found in watched:
        assert_sum(found)
    assert relay.status()["accepted"] == 420

"""The sum of all counts, looked at while all of it changes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from segrelay.ops.status.command import read_status
from segrelay.worker.contract.redis.connection import connect
from tests.integration.ops.relay import assert_sum, payload
from tests.waiting import until


def test_the_sum_holds_at_every_moment(relay, sandbox, redis_url, call):
    ended, seen = threading.Event(), []
    sandbox.settings(poison="poisoned", poison_status=200)

    def look(client):
        while not ended.is_set():
            seen.append(read_status(client, relay.settings))

    with closing(connect(redis_url)) as client, ThreadPoolExecutor() as pool:
        looking = pool.submit(look, client)
        try:
            for minute in range(3):
                relay.deliver(
                    *(payload(f"p{n}@example.com", minute=minute) for n in range(100)),
                    *(
                        payload(f"q{n}@example.com", minute=minute, status="poisoned")
                        for n in range(20)
                    ),
                    job="load",
                )
                call("dlq", "replay", "--all", "--yes")
                call("discard", "--job", "load", "--audience", "vip", "--yes")
                relay.publish(*(payload(f"p{n}@example.com", minute=minute) for n in range(20)))
            until(lambda: len(seen) > 10)
        finally:
            ended.set()
        looking.result()

    for found in seen:
        assert_sum(found)
    assert relay.status()["accepted"] == 420

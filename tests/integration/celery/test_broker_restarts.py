"""A broker that dies and comes back: the worker stays, and drains again at once."""

import os
import signal
import time

from segrelay.ops.embedded.lifecycle import ensure_running, find, stop
from tests.integration.celery.nodes import Broker, Node, configure
from tests.nightly import amount
from tests.waiting import allowed, until

RESTARTS = amount(2, nightly=20)


def test_after_each_kill_of_redis_it_drains_again_within_10_seconds(tmp_path):
    data_dir = tmp_path / "valkey"
    waited = []
    try:
        url = ensure_running(data_dir).url
        configuration = configure(tmp_path, url)
        with Node(configuration, "--concurrency=2") as node:
            Broker(url).put_work(("one", 1))
            for _ in range(RESTARTS):
                os.kill(find(data_dir).pid, signal.SIGKILL)
                assert ensure_running(data_dir).url == url
                back = time.time()
                until(lambda since=back: drained_since(url, since), 60)
                waited.append(time.time() - back)

            assert node.process.poll() is None
            assert max(waited) < allowed(10), waited
            assert node.stop()[0] == 0
    finally:
        stop(data_dir)


def test_it_can_be_stopped_while_redis_is_away(tmp_path):
    data_dir = tmp_path / "valkey"
    try:
        url = ensure_running(data_dir).url
        with Node(configure(tmp_path, url), "--concurrency=2") as node:
            os.kill(find(data_dir).pid, signal.SIGKILL)
            time.sleep(2)

            code, seconds = node.stop()

        assert code == 0
        assert seconds < allowed(5)
    finally:
        stop(data_dir)


def drained_since(url, since):
    broker = Broker(url)
    try:
        return any(row["began"] > since for row in broker.drained())
    finally:
        broker.client.close()

"""A broker that dies: the worker can be stopped all the same."""

import os
import signal

from segrelay.ops.embedded import ensure_running, find, stop
from tests.integration.celery.nodes import Node, configure
from tests.waiting import allowed, until


def test_it_can_be_stopped_while_redis_is_away(tmp_path):
    data_dir = tmp_path / "valkey"
    try:
        url = ensure_running(data_dir).url
        with Node(configure(tmp_path, url), "--concurrency=2") as node:
            os.kill(find(data_dir).pid, signal.SIGKILL)
            until(lambda: node.events("broker.unreachable"))

            code, seconds = node.stop()

        assert code == 0
        assert seconds < allowed(5)
    finally:
        stop(data_dir)

"""A real Celery worker whose drains only write down that they ran, in a list of Redis.

    python fake_worker.py worker --concurrency 3

FAKE_DRAIN is a JSON object: how long a drain takes, how often it wants to be woken again, and what
partition 13 does.
"""

import json
import os
import sys
import time
from types import SimpleNamespace

import structlog

from segrelay.ops.run.worker import run_celery
from segrelay.worker.batch.partition import Stop, Tally
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings, load_settings
from segrelay.worker.node.celery_app import build_app
from segrelay.worker.node.shared import TemplateUse

BEHAVIOUR = json.loads(os.environ.get("FAKE_DRAIN", "{}"))


class FakeDrains:
    """Takes the lease away from a partition's streams, as a drain would, and sleeps."""

    upkeep = SimpleNamespace(template_use=TemplateUse)

    def __init__(self, settings: Settings) -> None:
        self._client = Redis.from_url(settings.redis.url, socket_timeout=60)
        structlog.get_logger().info("drains.built", pid=os.getpid())

    def drain(
        self,
        destination: str,
        partition: int,
        stop: Stop,
        **_: object,
    ) -> tuple[Tally, str]:
        structlog.get_logger().info("drain.began", partition=partition)
        if partition == 13:
            _misbehave(BEHAVIOUR.get("on_13", ""))
        began = time.time()
        self._client.delete(PartitionKeys(destination, partition).wakeup)
        end = time.monotonic() + BEHAVIOUR.get("seconds", 0.05)
        while time.monotonic() < end and not stop.is_told:
            time.sleep(0.01)
        row = {
            "destination": destination,
            "partition": partition,
            "began": began,
            "ended": time.time(),
            "told": stop.is_told,
        }
        self._client.rpush("drained", json.dumps(row))
        return Tally(delivered=1, requests=1), BEHAVIOUR.get("again", "")


def _misbehave(how: str) -> None:
    if how == "bug":
        raise ValueError("somebody@example.com")
    if how == "die":
        os.kill(os.getpid(), 9)
    if how == "hang":
        time.sleep(60)


SETTINGS = load_settings()
app = build_app(
    SETTINGS,
    lambda: FakeDrains(SETTINGS),
    silence_seconds=float(os.environ.get("FAKE_SILENCE", "30")),
)

app.conf.task_time_limit = BEHAVIOUR.get("limit", app.conf.task_time_limit)

if __name__ == "__main__":
    run_celery(app, ["worker", *sys.argv[1:]])

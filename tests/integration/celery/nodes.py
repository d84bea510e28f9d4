"""Real workers in processes of their own, whose drains only write down that they ran."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress

from segrelay.worker.contract.celery import DRAIN_TASK, queue_name
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.core.rounds import WakeUp
from tests.configuration import credentials, endpoint, settings_in, trigger
from tests.waiting import until
from tests.warm import WarmProcess

FAKE_WORKER = "tests.integration.celery.fake_worker"


def configure(folder, url):
    tables = (
        endpoint(name, authorization="insider") + trigger(f"of-{name}", destination=name, url="/")
        for name in ("one", "two")
    )
    return settings_in(folder, credentials(), *tables, redis=url, partitions=16).source


class Broker:
    """What a test sees and does in Redis."""

    def __init__(self, url):
        self.client = connect(url)

    def drained(self):
        return [json.loads(row) for row in self.client.lrange("drained", 0, -1)]

    def put_work(self, *partitions, lane="live"):
        """Leave work in partitions without waking it."""
        for destination, partition in partitions:
            keys = PartitionKeys(destination, partition)
            name = f"{lane}|of-{destination}"
            self.client.xadd(keys.stream(name), {"h": "", "p": ""})
            self.client.sadd(keys.streams, name)


class Node:
    """A worker; its log can be read while it runs."""

    def __init__(self, configuration, *options, behaviour=None, silence=30.0, supervisor=""):
        self.log_file = configuration.with_name(f"node-{time.monotonic_ns()}.log")
        environment = {
            **os.environ,
            "SEGRELAY_CONFIG": str(configuration),
            "FAKE_DRAIN": json.dumps(behaviour or {}),
            "FAKE_SILENCE": str(silence),
            "NOTIFY_SOCKET": str(supervisor),
        }
        with self.log_file.open("wb") as log:
            self.process = WarmProcess(
                own_module(FAKE_WORKER, "--loglevel=DEBUG", "--without-mingle", *options),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def __enter__(self):
        try:
            until(lambda: "ready." in self.log, else_show=self.log_file)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(120)

    @property
    def log(self):
        return self.log_file.read_text(errors="replace")

    def events(self, name):
        lines = [json.loads(line) for line in self.log.splitlines() if line[:1] + line[-1:] == "{}"]
        return [line for line in lines if line["event"] == name]

    def stop(self, tell=os.kill):
        """End it in good order; returns its exit code and how long it took."""
        told = time.monotonic()
        tell(self.process.pid, signal.SIGTERM)
        code = self.process.wait(120)
        return code, time.monotonic() - told


def send(app, *calls):
    """Send messages as a producer would."""
    for call in calls:
        app.send_task(
            DRAIN_TASK,
            args=[call.destination, call.partition],
            queue=queue_name(call.queue),
        )


def live(destination, *partitions):
    return [WakeUp("live", destination, partition) for partition in partitions]

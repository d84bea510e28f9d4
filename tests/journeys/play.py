"""What journeys do: send, wait, look, and hold what is there against what happened."""

import random
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from segrelay.ops.status.command import read_status
from segrelay.producer.publish import Publisher
from segrelay.sandbox.people import happenings, payloads, truth
from tests import rig as cold
from tests.rig import ProcessStarter
from tests.waiting import allowed, until
from tests.warm import WarmProcess
from tools.chaos.watching import Watch

PATH_OF_EXITS = "/api/user/v1/attribute/delete"
PARTITIONS = 4
AN_HOUR_AGO_US = int(time.time() - 3_600) * 1_000_000
"""A time of events: the ledger remembers what has happened since."""
ENDS = ("delivered", "skipped", "dead", "discarded", "waiting")
SHORT = 'lease = "3s"\nlate = "2s"\nrequest_deadline = "5s"'
REMEMBERS_ALL = 'ledger_retention = "3650d"'
"""For journeys whose events are of a day that is written down."""


@dataclass
class Rig(cold.Rig):
    """A rig whose processes start quickly, and that waits longer on a busy machine.

    It has few partitions: how many there are changes nothing but the time that a test computes.
    """

    launch: ProcessStarter = WarmProcess

    def __enter__(self):
        if "partitions" not in self.redis_lines:
            self.redis_lines = f"partitions = {PARTITIONS}\n{self.redis_lines}"
        return super().__enter__()

    def wait_until_empty(self, seconds):
        super().wait_until_empty(allowed(seconds))


def invent(events, people, seed=1):
    """Return what happened, and the same in the random order in which it is sent."""
    rng = random.Random(seed)
    happened = happenings(rng, events=events, people=people)
    sent = list(happened)
    rng.shuffle(sent)
    return happened, sent


def lines(events, **options):
    return b"\n".join(payloads(events, **options)) + b"\n"


def run(rig, *words, given=b""):
    """Run a command that has to come to a good end; returns what it says."""
    done = rig.command(*words, given=given)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def send(rig, given):
    """Send payloads; all must be in Redis afterwards. Returns the command's report."""
    return orjson.loads(run(rig, "send", "-", "--json", given=given))


def publish(rig, given):
    """Publish payloads as the receiver does, without a command; all must be in Redis afterwards."""
    Publisher(rig.client, rig.settings).publish(given.splitlines())


def status_of(rig):
    """Return the status, whose sum must hold."""
    status = read_status(rig.client, rig.settings)
    assert status["accepted"] == sum(status[name] for name in ENDS)
    return status


def start_worker(rig, *options):
    """Start a worker and wait until it is ready; one process drains, unless an option says more."""
    worker = rig.start_worker("--concurrency=1", *options)
    await_ready(rig, worker)
    return worker


def await_ready(rig, worker):
    """Wait until a worker that was started is ready."""
    number = rig.workers.index(worker)
    until(lambda: rig.is_ready(number), 60, else_show=rig.worker_log(number))


def stop_worker(worker):
    """Tell a worker to stop; returns its exit code and how long it took."""
    begun = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    code = worker.wait(120)
    return code, time.monotonic() - begun


def nothing_is_wrong(rig, happened):
    """Assert that the sandbox holds what the newest events say, and that nothing is dead."""
    status = status_of(rig)
    assert (status["dead"], status["waiting"]) == (0, 0), status
    assert rig.memberships() == truth(happened)
    overlaps = rig.sandbox.get("overlaps")
    assert (overlaps["different"], overlaps["profiles_twice_in_a_request"]) == (0, 0)
    return status


def sent_twice(rig):
    """Return how many requests the sandbox took whole or in part twice, but for exits.

    Two exits of one person and audience look alike; an entrance and an event have their time.
    """
    repeats = rig.sandbox.get("repeats")["users"]
    return sum(
        path["doubled_answered"] + path["doubled_unanswered"] + path["doubled_in_flight"]
        for name, path in repeats.items()
        if name != PATH_OF_EXITS
    )


@contextmanager
def watched(rig, **options):
    """Check the sum all along; options are those of `Watch`."""
    watch = Watch(rig, **options)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
    assert not watch.broken, watch.broken
    assert watch.looks > 0

"""Failures that are staged, one after the other on a few systems: each is named, told, and over.

Within 15 s `status --check` exits with 1 and names cause and remedy, the metric of the alert is
there, and one message has come. After the cure all is well within 30 s, and one message says so.

These are the failures, and the tests of this folder that stage them. Those of
what comes in are staged in `tests/integration/ops/status/test_staged.py`, and each other problem
has a row of what is in Redis in `tests/unit/ops/status/test_judgement.py`.

| failure | problem | test |
| --- | --- | --- |
| Redis is full | `redis_full` | `…of_redis…` |
| Redis may throw keys away | `redis_not_durable` | `…of_redis…` |
| Redis can't write to its disk | `redis_disk_fails` | `…of_redis…` |
| Redis comes back empty | `redis_emptied` | `…emptied_redis…` |
| Redis is down | `redis_unreachable` (exit 3) | `…missing…` |
| no worker runs, and nothing waits | `no_worker` | `…missing…` |
| events are accepted, and none is delivered | `live_late` | `…of_a_destination…` |
| Insider refuses the credentials | `destination_paused` | `…of_a_destination…` |
| Insider answers with errors | `destination_broken` | `…of_a_destination…` |
| Insider refuses the bodies | `trigger_refused` | `…of_a_destination…` |
| something before Insider takes no body (413) | `dead_letters_grow` | `…of_a_destination…` |
| a person has paused a trigger | `trigger_paused` | `…of_a_destination…` |
"""

import threading
from contextlib import contextmanager
from pathlib import Path

import segrelay.templates as shipped
from tests.configuration import lytics, table
from tests.journeys.channel import OVER, PROBLEM, Channel
from tests.journeys.judging import entrances, ill_of, well
from tests.journeys.play import SHORT, Rig, publish, run
from tests.waiting import patient

MEMBERS = [{"_uid": f"u{n}", "email": f"p{n}@example.com", "segments": ["vip"]} for n in range(300)]
TEMPLATE = "insider/enter.jsonnet"
SHIPPED = (Path(shipped.__file__).parent / TEMPLATE).read_text()
SYNC = lytics("SANDBOX") + table("sync.vips", audience="vip", every="1s")
QUICK = table("operate", live_within=f"{patient(4):.0f}s", deploy_within="1s")


class Stage:
    """One system on which failures are staged, and the chat that is told of them."""

    def __init__(self, rig, channel):
        self.rig, self.channel = rig, channel
        self._next, self._named = 0, []

    def enter(self, count, audience="vip"):
        """Publish people who enter, each of them once."""
        publish(self.rig, entrances(count, self._next, audience))
        self._next += count

    def run(self, *words):
        run(self.rig, *words)

    def named(self, name, message, command):
        """Wait until a failure is named and told, with cause and remedy."""
        problem = ill_of(self.rig, name)
        assert message in problem["message"], problem
        assert command in problem["command"], problem
        self.channel.announced(name, PROBLEM)
        [told] = self.channel.messages(name)
        assert message in told["text"], told
        assert command in told["text"], told
        self._named.append(name)
        return problem

    def cured(self):
        well(self.rig)

    def all_over(self):
        """Wait until each failure was said to be over, once."""
        for name in self._named:
            self.channel.announced(name, PROBLEM, OVER)


@contextmanager
def staged(tmp_path, more="", **options):
    with Channel() as channel:
        table = QUICK + channel.table() + more
        with Rig(tmp_path, delivery_lines=SHORT, more=table, **options) as rig:
            stage = Stage(rig, channel)
            yield stage
            stage.all_over()


@contextmanager
def again_and_again(act, seconds):
    """Do something again and again beside the block."""
    is_over = threading.Event()

    def repeat():
        while not is_over.wait(seconds):
            act()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()

"""An audience is renamed under traffic, by a command that is killed: the newest event decides."""

import random
import signal
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import orjson
import pytest

from segrelay.ops.demo.rig import kill_group
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from tests.journeys.play import SHORT, Rig, start_worker, status_of, watched
from tests.nightly import amount
from tests.waiting import until

OLD, NEW = "vip", "cart-abandoners"
PEOPLE = [f"p{number}@example.com" for number in range(300)]
RUNS = amount(1, nightly=3)


class Traffic:
    """People who enter and leave, told under the old slug by a producer that learns nothing."""

    def __init__(self, rig, seed):
        self._rng = random.Random(seed)
        self._publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
        self._over = threading.Event()
        self.inside = {}

    def tell(self, email, direction):
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        entry = {"id": "a1", "slug": OLD, "event": direction, direction: at}
        text = orjson.dumps({"email": email, "segment_events": [entry]})
        assert self._publisher.publish([text]).accepted > 0
        self.inside[email] = direction == "enter"

    @contextmanager
    def going_on(self):
        thread = threading.Thread(target=self._go_on)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _go_on(self):
        while not self._over.wait(0.01):
            email = self._rng.choice(PEOPLE)
            self.tell(email, self._rng.choice(("enter", "exit")))


@pytest.mark.parametrize("seed", range(RUNS))
def test_nobody_is_wrong_after_an_audience_was_renamed_under_traffic(tmp_path, seed):
    rng = random.Random(seed)
    people = tmp_path / "people.ndjson"
    people.write_text("".join(f'{{"email": "{email}"}}\n' for email in PEOPLE))
    command = ("rename", "audience", OLD, NEW, "--people", str(people), "--yes")
    with Rig(tmp_path, delivery_lines=SHORT, exit_events=False) as rig, watched(rig):
        traffic = Traffic(rig, seed)
        for email in PEOPLE:
            traffic.tell(email, "enter")
        worker = start_worker(rig)
        rig.wait_until_empty(60)

        with traffic.going_on():
            for _ in range(4):
                killed = rig.start_beside(*command)
                time.sleep(rng.uniform(0.2, 2.0))
                kill_group(killed)
            worker.send_signal(signal.SIGSTOP)
            time.sleep(3)
            worker.send_signal(signal.SIGCONT)
            rig.kill_workers()
            start_worker(rig)
            assert rig.command(*command).returncode in {0, 1}
            time.sleep(1)
        rig.wait_until_empty(60)
        until(lambda: status_of(rig)["waiting"] == 0)

        held = rig.memberships()
        assert status_of(rig)["dead"] == 0
        assert {e for e, slugs in held.items() if OLD in slugs} == set()
        truth = {email for email, is_in in traffic.inside.items() if is_in}
        assert {email for email, slugs in held.items() if NEW in slugs} == truth

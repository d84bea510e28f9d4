"""Days of a sync: joins, leaves, pauses, crashes, bad scans; each ends as the source is."""

import random
from contextlib import closing
from itertools import cycle

import pytest

from segrelay.producer.sync.store import Phase
from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from segrelay.worker.node.runtime import Runtime
from tests.integration.producer.sync_world import World, person
from tests.interruptions import InterruptedRedis, Killed
from tests.nightly import amount
from tests.rig import SandboxProcess
from tests.warm import WarmProcess

DAYS = amount(6, nightly=50)
PEOPLE, MOST = 400, 12
"""So few move at once that no sync waits for a word: a tenth of the members may be gone."""
FAULTS = (
    {"repeated_rows": 0.6},
    {"scan_ends_after_rows": 130},
    {"hidden_rows": 0.01},
    {"error_shares": {"503": 0.1, "429": 0.1}},
    {"status_as_text": True},
    {"page_token_seconds": 0.05},
)
CALM = {
    "scan_ends_after_rows": 0, "repeated_rows": 0.0, "hidden_rows": 0.0, "error_shares": {},
    "status_as_text": False, "page_token_seconds": 300.0,
}  # fmt: skip


class FrailRedis(InterruptedRedis):
    """A client whose process dies now and then, before or behind a trip."""

    share, rng = 0.0, random.Random(9)

    def lived(self, call):
        self.crash()
        answer = call()
        self.crash()
        return answer

    def crash(self):
        if self.rng.random() < self.share:
            raise Killed


class Life:
    """Days of an audience, of its sync, and of those who deliver."""

    def __init__(self, world, frail, seed):
        self.world, self.frail = world, frail
        self.rng = random.Random(seed)
        self.faults = cycle(FAULTS)
        self.inside = set()
        self.crashes = 0
        self.doubts = 0

    def move(self, most):
        for number in self.rng.sample(range(PEOPLE), self.rng.randrange(most)):
            change = "exit" if number in self.inside else "enter"
            self.inside ^= {number}
            self.world.move(number, change)

    def run(self, crash_share):
        """Do a run in small steps, some of which die; returns how it ended."""
        self.frail.client.share = crash_share
        syncing, forced = None, True
        for _ in range(500):
            try:
                syncing = syncing or self.frail.syncing(sleep=lambda _: None)
                step = syncing.step(forced=forced, is_over=lambda: self.rng.random() < 0.7)
            except Killed:
                self.crashes += 1
                self.world.client.hdel("{sync:vip}", "lock", "until")
                if self.rng.random() < 0.3:
                    self.move(4)
                syncing = None
                continue
            forced = False
            if not (step.more or step.wait_seconds):
                return self.world.syncing().store.peek().phase
        raise AssertionError("the run does not end")

    def faulty_run(self):
        self.world.switch(**next(self.faults))
        phase = self.run(crash_share=0.02)
        self.doubts += phase is Phase.CONFIRM
        self.world.switch(**CALM)


@pytest.fixture
def worlds(tmp_path, redis_url):
    """Yield a world, and another one of the same Redis in which a process dies now and then."""
    with (
        SandboxProcess(launch=WarmProcess) as sandbox,
        closing(connect(redis_url)) as client,
        closing(FrailRedis.from_url(redis_url, protocol=2)) as frail,
    ):
        yield [World(tmp_path, redis_url, sandbox, each) for each in (client, frail)]


def drained(world, runtime):
    for _ in range(200):
        waiting = [
            partition for partition in world.partitions() if world.client.scard(partition.streams)
        ]
        if not waiting:
            return
        for partition in waiting:
            runtime.drain("insider", partition.number, Stop())
    raise AssertionError("it does not become empty")


def test_every_day_ends_with_insider_equal_to_the_source(worlds):
    world, _ = worlds
    life = Life(*worlds, seed=8)
    life.inside = set(range(0, PEOPLE, 2))
    world.people(*(person(n, *(["vip"] if n in life.inside else [])) for n in range(PEOPLE)))
    runtime = Runtime(world.settings)
    try:
        for day in range(DAYS):
            life.move(MOST)
            if day % 5 != 4:  # else the sync is paused until the evening
                life.faulty_run()
                life.move(MOST)
            assert life.run(crash_share=0.0) is Phase.IDLE, day
            drained(world, runtime)

            held = world.sandbox.get("memberships", attribute=DEFAULT_AUDIENCE_ATTRIBUTE)
            source = world.sandbox.get("lytics/members", audience="vip")
            assert {email for email, slugs in held.items() if "vip" in slugs} == {
                row["email"] for row in source
            }, day
            assert {row["email"] for row in source} == {
                f"p{number}@example.com" for number in life.inside
            }
    finally:
        runtime.close()
    assert life.crashes > DAYS // 3
    assert life.doubts > 0

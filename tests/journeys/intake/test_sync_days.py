"""Days of a sync: joins, leaves, pauses, crashes, bad scans; each ends as the source is."""

import random
from contextlib import closing
from dataclasses import replace
from itertools import cycle

import pytest

from segrelay.producer.publish import Publisher
from segrelay.producer.sync.store import Phase, SyncStore
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import DEFAULT_AUDIENCE_ATTRIBUTE
from segrelay.worker.node.runtime import Runtime
from tests.integration.producer.sync_world import World, person
from tests.nightly import amount
from tests.rig import SandboxProcess
from tests.warm import WarmProcess

DAYS = amount(6, nightly=50)
PEOPLE = 400
FAULTS = (
    {"scan_ends_after_rows": 130},
    {"repeated_rows": 0.6},
    {"hidden_rows": 0.01},
    {"error_shares": {"503": 0.1, "429": 0.1}},
    {"status_as_text": True},
    {"page_token_seconds": 0.05},
)
CALM = {
    "scan_ends_after_rows": 0, "repeated_rows": 0.0, "hidden_rows": 0.0, "error_shares": {},
    "status_as_text": False, "page_token_seconds": 300.0,
}  # fmt: skip


class Crash(BaseException):
    """The process is gone, wherever it was."""


class FrailStore(SyncStore):
    """Its process dies now and then, before or behind a saving."""

    def __init__(self, client, name, settings, dies):
        super().__init__(client, name, settings)
        self._dies = dies

    def save(self, run, *, ends=False):
        self._dies()
        super().save(run, ends=ends)
        self._dies()


class FrailPublisher(Publisher):
    """Its process dies now and then, before or behind a write."""

    def __init__(self, client, settings, dies):
        super().__init__(client, settings, waker=SilentWaker())
        self._dies = dies

    def publish_members(self, *arguments):
        self._dies()
        published = super().publish_members(*arguments)
        self._dies()
        return published


class Life:
    """Days of an audience, of its sync, and of those who deliver."""

    def __init__(self, world, seed):
        self.world = world
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
        syncing, forced = self._syncing(crash_share), True
        for _ in range(500):
            try:
                step = syncing.step(forced=forced, is_over=lambda: self.rng.random() < 0.7)
            except Crash:
                self.crashes += 1
                self.world.client.hdel("{sync:vip}", "lock", "until")
                if self.rng.random() < 0.3:
                    self.move(4)
                syncing = self._syncing(crash_share)
                continue
            forced = False
            if not (step.more or step.wait_seconds):
                return syncing.store.peek().phase
        raise AssertionError("the run does not end")

    def _syncing(self, crash_share):
        def dies():
            if self.rng.random() < crash_share:
                raise Crash

        client, settings = self.world.client, self.world.settings
        return replace(
            self.world.syncing(sleep=lambda _: None),
            store=FrailStore(client, "vip", settings.redis, dies),
            publisher=FrailPublisher(client, settings, dies),
        )

    def faulty_run(self):
        self.world.switch(**next(self.faults))
        phase = self.run(crash_share=0.08)
        self.doubts += phase is Phase.CONFIRM
        self.world.switch(**CALM)


@pytest.fixture
def world(tmp_path, redis_url):
    with SandboxProcess(launch=WarmProcess) as sandbox, closing(connect(redis_url)) as client:
        yield World(tmp_path, redis_url, sandbox, client)


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


def test_every_day_ends_with_insider_equal_to_the_source(world):
    life = Life(world, seed=8)
    life.inside = set(range(0, PEOPLE, 2))
    world.people(*(person(n, *(["vip"] if n in life.inside else [])) for n in range(PEOPLE)))
    runtime = Runtime(world.settings)
    try:
        for day in range(DAYS):
            life.move(25)
            if day % 5 != 4:  # else the sync is paused until the evening
                life.faulty_run()
                life.move(25)
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
    assert life.crashes > DAYS
    assert life.doubts > 0

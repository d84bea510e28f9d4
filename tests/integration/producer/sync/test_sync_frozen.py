"""Steps of a sync that stand still at any line while others go on, and that go on then."""

from dataclasses import replace

import pytest

from segrelay.producer.publish import Publisher
from segrelay.producer.sync.store import SyncStore
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract.words import Direction
from tests.integration.producer.sync_world import deliver, emails, enter_by_webhook, person
from tests.nightly import amount

REPETITIONS = amount(1, nightly=3)
EVERY_LINE = amount(2, nightly=1)
LINES = 10
"""Of a step, at least."""


class Stand:
    """Counts the lines that a step comes to, and lets others go on at one of them."""

    def __init__(self, line, meanwhile):
        self._line = line
        self._meanwhile = meanwhile
        self.lines = 0

    def __call__(self):
        self.lines += 1
        if self.lines == self._line:
            self._meanwhile()


def standing(ours, names):
    """Return a class like another, whose calls stop before what they do."""

    def stopping(name):
        def call(self, *arguments, **options):
            self.stand()
            return getattr(super(stopped, self), name)(*arguments, **options)

        return call

    stopped = type(f"Standing{ours.__name__}", (ours,), {name: stopping(name) for name in names})
    return stopped


StandingStore = standing(SyncStore, ("take", "claim", "save", "marks", "last_delivered", "pages"))
StandingPublisher = standing(Publisher, ("publish_members",))


def frozen_step(world, line, meanwhile):
    """Do the steps of a process that stands still at a line; returns how many it came to."""
    stand = Stand(line, meanwhile)
    store = StandingStore(world.client, "vip", world.settings.redis)
    publisher = StandingPublisher(world.client, world.settings, waker=SilentWaker())
    store.stand = publisher.stand = stand
    syncing = replace(world.syncing(), store=store, publisher=publisher)
    forced = True
    while syncing.step(forced=forced).more:
        forced = False
    return stand.lines


def frozen_in_a_repair(world, line):
    """Let a step that repairs stand still at a line while others repair, and people move on."""
    world.client.flushall()
    world.configure()
    first = repair_world(world)

    def others_go_on():
        world.lapse()
        world.run()
        for number in range(5):
            world.move(number, "exit")
            world.move(100 + number, "enter")
        world.switch(date_offset_seconds=120.0)
        world.run()

    lines = frozen_step(world, line, others_go_on)
    world.switch(date_offset_seconds=180.0)
    return lines, first


def repair_world(world):
    """Twenty members; five are out by the ledger, and it has five others whom Lytics has not."""
    world.sandbox.reset()
    world.people(*(person(n, "vip") for n in range(20)), *(person(n) for n in range(100, 105)))
    at_us = world.run().at_us
    deliver(world, Direction.ENTER, range(20), at_us)
    world.clear()
    deliver(world, Direction.EXIT, range(5), at_us + 1)
    enter_by_webhook(world, range(100, 105), at_us + 1)
    world.switch(date_offset_seconds=60.0)
    return at_us


def test_a_repair_that_stands_still_at_any_line_changes_nothing_of_later_runs(world):
    lines, _ = frozen_in_a_repair(world, line=0)
    assert lines >= LINES
    for line in [*range(1, lines + 1, EVERY_LINE)] * REPETITIONS:
        frozen_in_a_repair(world, line)
        run = world.run()

        at_lytics = emails([*range(5, 20), *range(100, 105)])
        assert run.last["outcome"] == "done", line
        assert (world.known(), world.inside() | emails(range(5, 20))) == (at_lytics, at_lytics)


def frozen_at(world, exports, line, *, in_the_middle):
    """Let a step stand still at a line while others read two files; returns its lines.

    Args:
        line: 0 = it never stands still.
        in_the_middle: It goes on while the later of the two is read.
    """
    world.client.flushall()
    world.configure(source="file:exports/*.csv")
    for name in ("1.csv", "2.csv", "3.csv", "4.csv"):
        exports(name, range(0), minutes_ago=0)  # too new to be read
    exports("1.csv", range(1_200), minutes_ago=90)
    world.run()
    exports("2.csv", range(100, 1_300), minutes_ago=60)

    def others_go_on():
        world.lapse()
        world.run()
        exports("3.csv", range(50, 1_250), minutes_ago=30)
        if in_the_middle:
            assert world.syncing().step(forced=True, is_over=lambda: True).more
        else:
            world.run()

    return frozen_step(world, line, others_go_on)


@pytest.mark.parametrize("in_the_middle", amount([True], nightly=[True, False]))
def test_a_step_that_stands_still_at_any_line_changes_nothing_of_later_runs(
    world, exports, in_the_middle
):
    newest = emails(range(50, 1_250))
    lines = frozen_at(world, exports, line=0, in_the_middle=False)
    assert lines >= LINES
    for line in [*range(1, lines + 1, EVERY_LINE)] * REPETITIONS:
        frozen_at(world, exports, line, in_the_middle=in_the_middle)
        run = world.run()

        assert (run.last["outcome"], run.problem) in {("done", ""), ("unchanged", "")}, line
        assert (world.known(), world.inside()) == (newest, newest), line
        exports("4.csv", range(50, 1_251), minutes_ago=10)
        run = world.run()
        assert (run.last["outcome"], run.entered, run.left) == ("done", 1, 0), line

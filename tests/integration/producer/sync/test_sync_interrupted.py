"""Steps of a sync that are killed, or stand still while others go on, at any of their writes."""

from dataclasses import replace
from functools import partial

import pytest

from segrelay.producer.publish import Publisher
from segrelay.producer.sync.step import syncing_for
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract.words import Direction
from tests.integration.producer.sync_world import deliver, emails, enter_by_webhook, person
from tests.interruptions import Case, course_of, interrupted_anywhere, standing_anywhere
from tests.nightly import amount

EVERY = amount(5, nightly=1)
TIMES = amount(4, nightly=60)


def steps(world):
    """Return all steps of a run, as a process that begins with a client."""

    def do(client):
        publisher = Publisher(client, world.settings, waker=SilentWaker())
        syncing = syncing_for(client, world.settings, "vip", publisher)
        syncing, forced = replace(syncing, sleep=lambda _: None), True
        while syncing.step(forced=forced).more:
            forced = False

    return do


def afresh(world, **options):
    world.client.flushall()
    world.sandbox.reset()
    world.switch(date_offset_seconds=0.0)
    world.configure(**options)


def repair(world, _):
    """Twenty members; five are out by the ledger, and it has five others whom Lytics has not."""

    def prepare():
        afresh(world)
        at_us = world.members(20, *(person(n) for n in range(100, 105))).at_us
        deliver(world, Direction.ENTER, range(20), at_us)
        deliver(world, Direction.EXIT, range(5), at_us + 1)
        enter_by_webhook(world, range(100, 105), at_us + 1)
        world.switch(date_offset_seconds=60.0)

    def others_go_on():
        world.moves("exit", range(5))
        world.moves("enter", range(100, 105))
        world.switch(date_offset_seconds=120.0)
        world.run()

    def truth():
        world.switch(date_offset_seconds=180.0)
        run = world.run()
        inside = world.inside()
        out = {email for _, email in world.deliveries()} - inside
        # Who is inside by the ledger needs no event.
        members = emails([*range(5, 20), *range(100, 105)]) | inside
        return run.last["outcome"], world.known(), members - out

    return Case(steps(world), truth, prepare, others_go_on)


def files(world, exports, *, in_the_middle):
    """Two exports follow; others read the later one, or are in the middle of it."""

    def prepare():
        afresh(world, source="file:exports/*.csv")
        for name in ("1.csv", "2.csv", "3.csv", "4.csv"):
            exports(name, range(0), minutes_ago=-60)  # never old enough to be read
        exports("1.csv", range(1_200), minutes_ago=90)
        world.run()
        exports("2.csv", range(100, 1_300), minutes_ago=60)

    def others_go_on():
        exports("3.csv", range(50, 1_250), minutes_ago=30)
        if in_the_middle:
            assert world.syncing().step(forced=True, is_over=lambda: True).more
            world.lapse()
        else:
            world.run()

    def truth():
        run = world.run()
        assert (run.last["outcome"], run.problem) in {("done", ""), ("unchanged", "")}
        known, inside = world.known(), world.inside()
        exports("4.csv", range(50, 1_251), minutes_ago=10)
        run = world.run()
        return known, inside, run.last["outcome"], run.entered, run.left

    return Case(steps(world), truth, prepare, others_go_on)


@pytest.mark.parametrize(
    "case_of", [repair, partial(files, in_the_middle=False)], ids=["repair", "files"]
)
def test_a_step_that_is_killed_or_stands_still_changes_nothing_of_later_runs(
    world, exports, redis_url, case_of
):
    case = case_of(world, exports)
    interrupted_anywhere(world.client, redis_url, case, every=EVERY, times=TIMES)


def test_a_step_that_stands_still_while_another_is_in_the_middle_of_a_file(
    world, exports, redis_url
):
    case = files(world, exports, in_the_middle=True)
    course = course_of(world.client, redis_url, case)
    standing_anywhere(world.client, redis_url, case, course, times=TIMES)

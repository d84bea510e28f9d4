"""An hour of a trigger whose URL answers 500, in virtual time, beside two that work."""

from segrelay.worker.destinations.api import Answer
from tests.conformance.drain.fake_insider import Sending, failed, taken
from tests.conformance.drain.world import World, event
from tests.nightly import amount

STEPS = amount(90, nightly=360)
STEP_SECONDS = 3_600 / STEPS
PEOPLE_A_STEP = 12
OTHERS = ("enter", "exit-event")


def play(world: World) -> list[int]:
    """Let people enter, and exit a step later; returns how many of the others wait after each."""
    left: list[int] = []
    for step in range(STEPS):
        entering = [event(f"p{step}-{n}", at=2 * step) for n in range(PEOPLE_A_STEP)]
        leaving = [
            event(f"p{step - 1}-{n}", trigger=trigger, at=2 * step + 1)
            for n in range(PEOPLE_A_STEP)
            for trigger in ("exit", "exit-event")
        ]
        world.put(*entering, *leaving)
        world.drain()
        world.pass_seconds(STEP_SECONDS / 2)
        world.drain()
        world.pass_seconds(STEP_SECONDS / 2)
        left.append(
            sum(
                waiting
                for stream, waiting in world.store.lengths().items()
                if stream.partition("|")[2] in OTHERS
            )
        )
    return left


def test_a_trigger_that_fails_for_an_hour_holds_up_no_other_and_buries_nobody(make_world) -> None:
    healthy = make_world(taken)
    broken: list[bool] = [True]

    def responds(sending: Sending) -> Answer:
        return failed(500) if broken and sending.url.endswith("delete") else taken(sending)

    failing = make_world(responds)

    usual, beside_it = play(healthy), play(failing)

    # The first request of the failing trigger holds its own people for a while, then one at a time.
    later = slice(10, None)
    assert max(usual[later]) == 0
    assert max(beside_it[later]) <= 2
    assert failing.count("dead") == 0
    broken.clear()
    failing.drain_until_nothing_is_left(seconds=900)
    assert failing.store.waiting() == 0
    assert failing.count("delivered") + failing.count("skipped") == failing.count("accepted")

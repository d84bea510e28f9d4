"""Permits, waiting calls and the board: what the processes of a node share."""

import multiprocessing
import os
import signal

import pytest

from segrelay.worker.contract.celery import BackgroundJob
from segrelay.worker.core.rounds import WakeUp
from segrelay.worker.node.shared import (
    Board,
    NodeMemory,
    Permits,
    WaitingCalls,
    listening,
)

FORK = multiprocessing.get_context("fork")


class Holder:
    """A process of the node that holds what it takes."""

    def __init__(self, permits, call, options=None):
        self._pipe, theirs = FORK.Pipe()
        self.process = FORK.Process(
            target=_hold, args=(permits, call, theirs, options or {}), daemon=True
        )
        self.process.start()
        self.has_permit = self._pipe.recv() if self._pipe.poll(120) else None

    def kill(self):
        self.process.kill()
        self.process.join(120)


def _hold(permits, call, pipe, options):
    permit = permits.take(call, **options)
    pipe.send(permit is not None)
    pipe.recv()
    os._exit(0)


@pytest.fixture
def holders():
    found = []

    def hold(permits, *calls, **options):
        new = [Holder(permits, call, options) for call in calls]
        found.extend(new)
        return new

    yield hold
    for holder in found:
        holder.kill()


def live(destination="one"):
    return WakeUp("live", destination, 1)


def backfill(destination="one"):
    return WakeUp("backfill", destination, 1)


BACKFILLS = [(1, 1), (2, 1), (3, 2), (4, 2), (6, 3), (9, 6)]
"""Processes, and how many of them backfills of one destination may take."""


@pytest.mark.parametrize(
    ("processes", "calls", "granted"),
    [
        # Of one destination one drain less runs than there are processes.
        *((n, [live()] * (m + 1), [*[True] * m, False])
          for n, m in [(1, 1), (2, 1), (3, 2), (5, 4)]),
        # Of more than three, backfills leave some to live work of their destination.
        *((n, [*[backfill()] * (m + 1), live()], [*[True] * m, False, n > 3])
          for n, m in BACKFILLS),
        # The lane is limited over all destinations, and who finds no permit in it keeps no other.
        (3, [backfill("one"), backfill("two"), backfill("two"), live("two")],
         [True, True, False, True]),
        (2, [backfill("one"), backfill("two"), live("two")], [True, False, True]),
    ],
)  # fmt: skip
def test_so_many_drains_run_at_once(holders, processes, calls, granted):
    taken = holders(Permits(processes, ["one", "two"]), *calls)

    assert [holder.has_permit for holder in taken] == granted


@pytest.mark.parametrize(("processes", "granted"), [(1, 1), (3, 2), (4, 2), (6, 2), (9, 5)])
def test_while_live_calls_come_backfills_leave_one_permit_more(holders, processes, granted):
    permits = Permits(processes, ["one"])
    before = permits.live_is_recent()
    holders(permits, live())[0].kill()
    permits._live_at[0] += 3_600  # a second is over soon on a loaded machine

    taken = [holders(permits, backfill())[0] for _ in range(granted + 1)]

    assert (before, permits.live_is_recent()) == (False, True)
    assert [holder.has_permit for holder in taken] == [True] * granted + [False]


def test_a_permit_is_given_back_at_its_end(holders):
    permits = Permits(2, ["one"])

    with permits.take(live()):
        assert not holders(permits, live())[0].has_permit

    assert holders(permits, live())[0].has_permit


SYNC = BackgroundJob("segrelay.sync", "vips")
OTHER = WakeUp("live", "one", 2)


@pytest.mark.parametrize(
    ("calls", "freed", "taken"),
    [
        # They wait in their order and once; live calls go before the others.
        ([live(), OTHER, live()], [live()] * 3, [live(), OTHER, None]),
        ([backfill(), live()], [backfill()], [live()]),
        # A call waits for a permit that is good for it.
        ([live("one")], [live("two")], [None]),
        ([backfill("one")], [backfill("two")], [backfill("one")]),
        ([backfill("one")], [live("two")], [None]),
        ([backfill("one")], [live("one")], [backfill("one")]),
        # A background job waits in turn with the drains of backfills.
        ([backfill("one"), SYNC, backfill("two"), SYNC], [backfill()] * 4,
         [backfill("one"), SYNC, backfill("two"), None]),
        ([SYNC], [live()], [None]),
    ],
)  # fmt: skip
def test_a_permit_that_is_given_back_goes_to_the_next_call_that_can_use_it(calls, freed, taken):
    waiting = WaitingCalls()
    for call in calls:
        waiting.add(call)

    assert [waiting.next_after(each) for each in freed] == taken


def test_a_background_job_waits_while_another_one_runs_and_drains_go_on():
    waiting = WaitingCalls()
    waiting.add(SYNC)
    waiting.add(backfill())

    assert waiting.next_after(backfill(), job_runs=lambda: True) == backfill()
    assert waiting.next_after(backfill()) == SYNC


def test_waiting_calls_survive_what_a_killed_process_left_half_written():
    waiting = WaitingCalls()
    os.pwrite(waiting.descriptor, b'{"calls": [["live", "on', 0)

    assert waiting.next_after(live()) is None
    waiting.add(live())
    assert waiting.next_after(live()) == live()


def test_processes_beyond_the_first_ones_replace_some_that_were_killed():
    node = NodeMemory(3, ["one"])
    for _ in range(3):
        node.count_process()
    assert "killed" not in node.about()

    for _ in range(2):
        process = FORK.Process(target=node.count_process)
        process.start()
        process.join(120)

    about = node.about()
    assert (about["killed"], about["killed_ms"] > 0) == (2, True)


def test_sigterm_tells_only_the_drain_that_runs():
    board = Board()
    before = signal.getsignal(signal.SIGTERM)

    with listening(board) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_told

    assert signal.getsignal(signal.SIGTERM) is before
    with listening(board) as next_stop:
        assert not next_stop.is_told


def test_permits_are_free_when_nobody_drains(holders):
    permits = Permits(3, ["one"])
    (holder,) = holders(permits, backfill())

    while_held = permits.are_free()
    holder.kill()

    assert (while_held, permits.are_free()) == (False, True)

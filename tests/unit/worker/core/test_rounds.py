"""Whom the sweep wakes, and when it notices that nobody comes."""

import pytest

from segrelay.worker.core.rounds import AGAIN_SECONDS, TAKEN_SECONDS, Rounds, Sight, WakeUp


def sight(partition=1, *, due=True, waking=False, held=False):
    return Sight(WakeUp("live", "one", partition), due, waking, held)


RINGS = sight(waking=True)
FOUR = [sight(partition, waking=True) for partition in range(4)]
OTHERS = [sight(partition, waking=True) for partition in range(2, 9)]


def wake_in_rounds(looks):
    """Return rounds after some looks (seconds, queued messages, sights), and the last wake-ups."""
    rounds = Rounds()
    for now_seconds, queued, seen in looks:
        woken = rounds.wake_for(seen, queued=queued, now_seconds=now_seconds)
    return rounds, [call.partition for call in woken]


@pytest.mark.parametrize(
    ("looks", "woken"),
    [
        ([(0, 0, [sight(3)])], [3]),
        # What is not due is left alone, whether its bell rings or not.
        ([(100, 0, [sight(due=False)])], []),
        ([(100, 0, [sight(due=False, waking=True)])], []),
        # A bell that rings is given time, until its message was taken or nobody answers.
        ([(0, 1, [sight(), *OTHERS]), (AGAIN_SECONDS - 0.1, 1, [RINGS, *OTHERS])], []),
        ([(0, 0, [sight()]), (0.1, 0, [RINGS])], []),
        ([(0, 0, [sight()]), (0.1, 0, [RINGS]), (TAKEN_SECONDS, 0, [RINGS])], [1]),
        ([(0, 0, [sight()]), (AGAIN_SECONDS, 0, [RINGS])], [1]),
        # Somebody else rang it.
        ([(0, 0, [RINGS]), (AGAIN_SECONDS, 0, [RINGS])], [1]),
        # Messages still wait; one of them is lost.
        ([(0, 4, FOUR), (60, 4, FOUR)], []),
        ([(0, 3, FOUR), (AGAIN_SECONDS, 3, FOUR)], [0, 1, 2, 3]),
    ],
)
def test_a_bell_is_rung_for_due_work_and_again_where_nobody_answers(looks, woken):
    assert wake_in_rounds(looks)[1] == woken


def test_all_busy_the_queue_stays_below_two_messages_a_partition():
    rounds, seen, queued = Rounds(), [sight(p, waking=True) for p in range(16)], 0

    for second in range(600):
        queued += len(rounds.wake_for(seen, queued=queued, now_seconds=second))
        queued -= second % 3 == 0
        assert queued < 32


RUNG = [(0, 0, [sight(1), sight(2)]), (20, 0, [RINGS, sight(2, waking=True)])]


@pytest.mark.parametrize(
    ("looks", "silent_seconds"),
    [
        # It begins with the first bell that is not answered.
        ([(second, 0, [sight(waking=second > 0)]) for second in range(32)], 30),
        # A lease is held; a wake-up was taken; there is nothing to ring for.
        ([*RUNG, (40, 0, [RINGS, sight(2, due=False, held=True)])], 0),
        ([*RUNG, (40, 0, [RINGS, sight(2)])], 0),
        ([(0, 0, [sight()]), (1, 0, [RINGS]), (50, 0, [])], 0),
    ],
)
def test_silence_lasts_until_one_partition_is_taken(looks, silent_seconds):
    rounds, _ = wake_in_rounds(looks)

    assert rounds.silent_for_seconds(looks[-1][0]) == silent_seconds

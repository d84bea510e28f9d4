"""Whom the sweep wakes, and when it notices that nobody comes."""

import pytest

from segrelay.worker.core.rounds import AGAIN_SECONDS, TAKEN_SECONDS, Rounds, Sight, WakeUp


def sight(partition=1, *, due=True, waking=False, held=False):
    return Sight(WakeUp("live", "one", partition), due, waking, held)


def test_due_work_whose_bell_is_silent_is_rung_for_at_once():
    assert Rounds().wake_for([sight(3)], queued=0, now_seconds=0) == [WakeUp("live", "one", 3)]


@pytest.mark.parametrize("waking", [False, True])
def test_what_is_not_due_is_left_alone(waking):
    seen = [sight(due=False, waking=waking)]

    assert Rounds().wake_for(seen, queued=0, now_seconds=100) == []


def test_a_bell_that_rings_is_given_time():
    rounds, others = Rounds(), [sight(p, waking=True) for p in range(2, 9)]
    rounds.wake_for([sight(), *others], queued=1, now_seconds=0)

    seen = [sight(waking=True), *others]
    assert rounds.wake_for(seen, queued=1, now_seconds=AGAIN_SECONDS - 0.1) == []


def test_a_bell_whose_message_was_taken_is_rung_again_in_the_next_round():
    rounds = Rounds()
    rounds.wake_for([sight()], queued=0, now_seconds=0)

    assert rounds.wake_for([sight(waking=True)], queued=0, now_seconds=0.1) == []
    assert rounds.wake_for([sight(waking=True)], queued=0, now_seconds=TAKEN_SECONDS)


@pytest.mark.parametrize("by_another", [False, True])
def test_a_bell_that_nobody_answers_is_rung_again_whoever_rang_it(by_another):
    rounds = Rounds()
    rounds.wake_for([sight(waking=by_another)], queued=0, now_seconds=0)

    assert rounds.wake_for([sight(waking=True)], queued=0, now_seconds=AGAIN_SECONDS)


def test_messages_that_still_wait_are_not_sent_again():
    rounds, seen = Rounds(), [sight(p, waking=True) for p in range(4)]
    rounds.wake_for(seen, queued=4, now_seconds=0)

    assert rounds.wake_for(seen, queued=4, now_seconds=60) == []


def test_one_lost_message_among_many_that_wait_is_noticed():
    rounds, seen = Rounds(), [sight(p, waking=True) for p in range(4)]
    rounds.wake_for(seen, queued=3, now_seconds=0)

    assert len(rounds.wake_for(seen, queued=3, now_seconds=AGAIN_SECONDS)) == 4


def test_all_busy_the_queue_stays_below_two_messages_a_partition():
    rounds, seen, queued = Rounds(), [sight(p, waking=True) for p in range(16)], 0

    for second in range(600):
        queued += len(rounds.wake_for(seen, queued=queued, now_seconds=second))
        queued -= second % 3 == 0
        assert queued < 32


def test_silence_is_counted_from_the_first_bell_that_is_not_answered():
    rounds = Rounds()

    for second in range(32):
        rounds.wake_for([sight(waking=second > 0)], queued=0, now_seconds=second)

    assert rounds.silent_for_seconds(31) == 30


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(sight(2, due=False, held=True), id="a lease is held"),
        pytest.param(sight(2, waking=False), id="a wake-up was taken"),
    ],
)
def test_one_partition_that_is_taken_ends_the_silence(answer):
    rounds = Rounds()
    rounds.wake_for([sight(1), sight(2)], queued=0, now_seconds=0)
    rounds.wake_for([sight(1, waking=True), sight(2, waking=True)], queued=0, now_seconds=20)

    rounds.wake_for([sight(1, waking=True), answer], queued=0, now_seconds=40)

    assert rounds.silent_for_seconds(40) == 0


def test_having_nothing_to_ring_for_is_no_silence():
    rounds = Rounds()
    rounds.wake_for([sight()], queued=0, now_seconds=0)
    rounds.wake_for([sight(waking=True)], queued=0, now_seconds=1)

    rounds.wake_for([], queued=0, now_seconds=50)

    assert rounds.silent_for_seconds(50) == 0

"""The lock on a real Redis: one holder at a time, checked in the write, by a clock that jumps."""

import pytest

from segrelay.worker.contract.redis.lock import Lock
from tests.waiting import allowed

KEY = "{work}"
LASTING_MS = 60_000
AN_HOUR_MS = 3_600_000


@pytest.fixture
def lock_of(client):
    return lambda: Lock(client, KEY, LASTING_MS, "state")


def move_end(client, by_ms):
    """Move the end of the lock, as if Redis' clock were moved the other way."""
    client.hset(KEY, "until", int(client.hget(KEY, "until")) + by_ms)


def test_the_second_is_told_for_how_long_the_first_holds_it(lock_of):
    first, second = lock_of().take(), lock_of().take()

    assert (first.epoch > 0, first.left_seconds) == (True, 0)
    assert (second.epoch, 60 - allowed(10) < second.left_seconds <= 60) == (0, True)


def test_who_lost_the_answer_takes_it_again(lock_of):
    lock = lock_of()

    before, now = lock.take(), lock.take()

    assert now.epoch > before.epoch
    assert lock.save(before.epoch, {"state": "x"}) is None


def test_it_lapses_and_what_the_former_holder_writes_is_refused(lock_of, client):
    late, next_one = lock_of(), lock_of()
    epoch = late.take().epoch
    move_end(client, -AN_HOUR_MS)

    taken = next_one.take()

    assert taken.epoch > epoch
    assert late.save(epoch, {"state": "late"}, ends=True) is None
    assert next_one.save(taken.epoch, {"state": "fresh"}) == b"fresh"


def test_a_lapsed_lock_that_nobody_took_is_still_its_holders(lock_of, client):
    lock = lock_of()
    epoch = lock.take().epoch
    move_end(client, -AN_HOUR_MS)

    assert lock.save(epoch, {"state": "whole"}) == b"whole"
    assert lock_of().take().epoch == 0


def test_a_lock_ends_as_if_it_were_taken_now_once_the_clock_was_set_back(lock_of, client):
    lock_of().take()
    move_end(client, AN_HOUR_MS)

    refused = lock_of().take()

    assert (refused.epoch, refused.left_seconds) == (0, LASTING_MS / 1_000)
    move_end(client, -LASTING_MS)
    assert lock_of().take().epoch > 0


def test_who_gives_it_back_lets_the_next_one_in_with_what_was_written(lock_of, client):
    lock = lock_of()
    epoch = lock.take().epoch
    lock.save(epoch, {"state": "done"}, ends=True)

    taken = lock_of().take()

    assert (taken.field, taken.epoch > epoch) == (b"done", True)
    assert client.pttl(KEY) == -1, "what was written stays"


def test_epochs_grow_though_the_clock_was_set_back(lock_of, client):
    far = 9_999_999_999_999
    client.hset(KEY, "epoch", far)

    assert lock_of().take().epoch == far + 1


def test_it_is_taken_only_if_its_field_has_the_value(lock_of, client):
    client.hset(KEY, "state", "paused")
    client.set("{work}:wakeup", "1")

    refused = lock_of().take(wakeup="{work}:wakeup", only="reading")

    assert (refused.epoch, refused.left_seconds, refused.field) == (0, 0.0, b"paused")
    assert client.exists("{work}:wakeup")
    assert lock_of().take(wakeup="{work}:wakeup", only="paused").epoch > 0
    assert not client.exists("{work}:wakeup")

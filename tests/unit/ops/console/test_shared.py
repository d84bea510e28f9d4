import time
from threading import Event, Thread

import pytest

from segrelay.ops.status.standing import Shared
from segrelay.worker.errors import RedisUnavailable
from tests.waiting import allowed, until


class Source:
    """Counts how often it was read; waits while it is held, and fails if it is told to."""

    def __init__(self):
        self.count = 0
        self.fails = False
        self.goes = Event()
        self.goes.set()

    def read(self):
        self.count += 1
        number = self.count
        self.goes.wait(allowed(10))
        if self.fails:
            raise RedisUnavailable("away")
        return number


def fails(value):
    try:
        value()
    except RedisUnavailable:
        return True
    return False


@pytest.fixture
def source():
    return Source()


@pytest.mark.parametrize("is_away", [False, True], ids=["it is read", "it fails"])
def test_all_who_ask_at_once_share_one_reading(source, is_away):
    value = Shared(source.read, 60.0)
    source.fails = is_away
    source.goes.clear()
    came, found = [], []
    threads = [Thread(target=lambda: (came.append(1), found.append(fails(value)))) for _ in "abcde"]
    for one in threads:
        one.start()
    until(lambda: (source.count, len(came)) == (1, 5), 10)
    source.goes.set()
    for one in threads:
        one.join(allowed(10))

    assert found == [is_away] * 5
    assert source.count == 1


def test_a_change_made_here_is_seen_at_once(source):
    changes = [0.0]
    value = Shared(source.read, 60.0, changed_at=lambda: changes[0])
    assert (value(), value()) == (1, 1)
    changes[0] = time.time()

    assert value() == 2


def test_what_takes_long_is_read_less_often(source):
    value = Shared(lambda: time.sleep(0.2) or source.read(), 0.01)

    assert (value(), value()) == (1, 1)
    assert 0.2 / 0.05 <= value.seconds <= 10, "on a busy machine it is not old for minutes"


def test_a_reading_that_fails_is_told_and_then_read_again(source):
    value = Shared(source.read, 0.0)
    source.fails = True

    assert fails(value)
    source.fails = False
    assert until(lambda: not fails(value), 10)

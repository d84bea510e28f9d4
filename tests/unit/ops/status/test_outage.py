"""A Redis that can't be reached is announced by one process of each machine, and so is its end."""

import pytest

from segrelay.ops.status.alert_store import (
    CALM_SECONDS,
    IN_DOUBT,
    MOST_TRIES,
    NOT_SENT,
    QUIET_SECONDS,
    SENT,
)
from segrelay.ops.status.alerts import MachineLock, OutageAnnouncer

AFTER = 5.0
WHY = "Redis at 127.0.0.1:6379 can't be reached."


class Machine:
    """A machine with a clock, a lock and a chat, and processes that look every second."""

    def __init__(self, path):
        self.path = path
        self.now = 1_000.0
        self.fate = SENT
        self.said = []

    def process(self):
        lock = MachineLock(self.path)
        return OutageAnnouncer(
            self._send,
            lock.take,
            lock.give_back,
            AFTER,
            now_seconds=lambda: self.now,
            now_ms=lambda: round(self.now * 1_000),
        )

    def _send(self, alert, tries):
        self.said.append((("over" if alert.is_over else "begin"), alert.is_restless, tries))
        return self.fate

    def let_pass(self, seconds, *processes, failure=""):
        for _ in range(round(seconds)):
            for one in processes:
                one.observe(failure)
            self.now += 1

    def events(self):
        return [event for event, _, tries in self.said if tries == 1]


@pytest.fixture
def machine(tmp_path):
    path = tmp_path / "segrelay.toml"
    path.write_text("")
    return Machine(path)


def test_one_of_the_processes_of_a_machine_announces_an_outage_and_its_end(machine):
    processes = [machine.process() for _ in range(4)]

    machine.let_pass(AFTER, *processes, failure=WHY)
    assert machine.said == []
    machine.let_pass(60, *processes, failure=WHY)
    assert machine.events() == ["begin"]
    machine.let_pass(CALM_SECONDS, *processes)
    assert machine.events() == ["begin"]
    machine.let_pass(2, *processes)

    assert machine.events() == ["begin", "over"]


def test_a_short_outage_is_not_announced(machine):
    one = machine.process()

    for _ in range(3):
        machine.let_pass(AFTER - 1, one, failure=WHY)
        machine.let_pass(30, one)

    assert machine.said == []


def test_an_outage_that_comes_back_is_announced_as_one_that_comes_and_goes(machine):
    processes = [machine.process() for _ in range(3)]

    for _ in range(5):
        machine.let_pass(30, *processes, failure=WHY)
        machine.let_pass(60, *processes)

    assert machine.events() == ["begin", "over", "begin", "begin"]
    assert machine.said[-1] == ("begin", True, 1)
    machine.let_pass(QUIET_SECONDS, *processes)
    assert machine.events() == ["begin", "over", "begin", "begin", "over"]


def test_another_process_goes_on_after_the_one_that_announced_it_is_gone(machine):
    first, second = machine.process(), machine.process()
    machine.let_pass(30, first, second, failure=WHY)
    assert machine.events() == ["begin"]

    first.give_back()  # as the end of its process does
    machine.let_pass(30, second, failure=WHY)
    machine.let_pass(30, second)

    assert machine.events() == ["begin", "begin", "over"]


def test_the_lock_is_free_again_long_after_the_end(machine):
    first, second = machine.process(), machine.process()
    machine.let_pass(30, first, second, failure=WHY)
    machine.let_pass(QUIET_SECONDS + 60, first, second)

    machine.let_pass(30, second, failure=WHY)

    assert machine.events() == ["begin", "over", "begin"]
    assert not machine.said[-1][1]


def test_a_message_that_is_not_taken_is_tried_again_later_and_given_up_at_last(machine):
    one = machine.process()
    machine.fate = NOT_SENT

    machine.let_pass(600, one, failure=WHY)

    assert [tries for *_, tries in machine.said] == [*range(1, MOST_TRIES + 1)]


def test_a_message_that_could_not_be_sent_in_the_outage_comes_before_that_about_its_end(machine):
    one = machine.process()
    machine.fate = NOT_SENT
    machine.let_pass(20, one, failure=WHY)
    machine.fate = SENT

    machine.let_pass(60, one)

    taken = [event for event, *_ in machine.said]
    assert taken[-2:] == ["begin", "over"]


def test_a_message_without_an_answer_is_sent_once_more(machine):
    one = machine.process()
    machine.fate = IN_DOUBT

    machine.let_pass(600, one, failure=WHY)

    assert [tries for *_, tries in machine.said] == [1, 2]


def test_without_a_file_to_lock_it_is_announced_all_the_same(machine):
    machine.path.unlink()
    one = machine.process()

    machine.let_pass(30, one, failure=WHY)

    assert machine.events() == ["begin"]


def test_an_outage_that_lasts_is_announced_whatever_came_before(machine):
    one = machine.process()
    for _ in range(3):
        machine.let_pass(7, one, failure=WHY)
        machine.let_pass(20, one)
    assert machine.events() == ["begin", "over", "begin"]

    machine.let_pass(17, one, failure=WHY)

    assert machine.events() == ["begin", "over", "begin", "begin"]


def test_an_outage_that_lasts_is_told_again_after_a_while(machine):
    one = machine.process()
    one.remind_after_seconds = 60.0

    machine.let_pass(130, one, failure=WHY)

    assert machine.events() == ["begin", "begin", "begin"]

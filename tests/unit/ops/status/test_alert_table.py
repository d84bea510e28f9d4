"""Which messages are sent about which problems, and when."""

from dataclasses import replace

import pytest

from segrelay.ops.status.alerts import CALM_MS, MOST_OPEN, AlertTable, PostResult
from segrelay.ops.status.problems import ATTENTION, ILL, HealthProblem
from segrelay.worker.contract.settings.sections import NotifySettings
from segrelay.worker.contract.settings.values import Secret

PAUSED = HealthProblem("destination_paused", ILL, "insider", "401", "segrelay resume insider")
SLOW = HealthProblem("destination_slowed", ATTENTION, "insider", "429", "segrelay status")
URL = Secret("literal", "https://chat.example.com/hook")


class Chat:
    """A chat, and the looks of one process every second."""

    def __init__(self, *, least_ms=0, **keys):
        settings = NotifySettings(url=URL, **({"remind_after_seconds": 0.0} | keys))
        self.table = AlertTable(settings, least_ms=least_ms)
        self.now_ms = 1_000_000
        self.result = PostResult()
        self.came = []

    def _post(self, kind, one):
        self.came.append((kind, one.problem.severity))
        return self.result

    def see(self, seconds, *problems):
        """Let problems be there, or none, and return the kinds of messages that came."""
        self.came.clear()
        for _ in range(seconds):
            self.now_ms += 1_000
            self.table.observe(problems, self.now_ms)
            while self.table.tell_next(self._post, self.now_ms):
                pass
        return [kind for kind, _ in self.came]


def test_a_problem_is_told_once_when_it_has_stood_and_once_when_it_is_over():
    chat = Chat(after_seconds=5.0)

    assert chat.see(5, PAUSED) == []
    assert chat.see(60, PAUSED) == ["problem"]
    assert chat.see(60) == ["problem_over"]


def test_what_is_over_sooner_is_not_told():
    chat = Chat(after_seconds=5.0)

    for _ in range(10):
        assert chat.see(4, PAUSED) + chat.see(2) == []


def test_a_short_pause_of_a_problem_is_not_its_end():
    chat = Chat()
    chat.see(5, PAUSED)

    assert chat.see(CALM_MS // 1_000 - 1) + chat.see(60, PAUSED) == []


def test_a_real_outage_after_three_short_ones_is_told_within_half_a_minute():
    chat = Chat()
    for _ in range(3):
        chat.see(7, PAUSED)
        assert chat.see(20)[-1:] == ["problem_over"]

    assert chat.see(30, PAUSED) == ["problem"]


def test_what_becomes_ill_within_ten_seconds_is_one_message():
    chat = Chat(severity="attention")

    chat.see(9, SLOW)
    assert chat.came == []
    chat.see(60, replace(SLOW, severity=ILL))

    assert chat.came == [("problem", ILL)]


def test_a_lesser_problem_is_told_and_told_again_when_it_becomes_ill():
    chat = Chat(severity="attention")

    assert chat.see(20, SLOW) == ["problem"]
    chat.see(20, replace(SLOW, severity=ILL))
    assert chat.came == [("problem", ILL)]
    assert chat.see(20, SLOW) == []


def test_an_ill_problem_that_lasts_is_told_again_and_a_lesser_one_is_not():
    chat = Chat(remind_after_seconds=60.0, severity="attention")

    assert chat.see(190, PAUSED, SLOW).count("problem_lasts") == 3
    assert all(severity == ILL for kind, severity in chat.came if kind == "problem_lasts")


def test_problems_of_one_name_and_subject_are_one_message():
    chat = Chat()
    told = []
    chat._post = lambda _, one: told.append(one.problem.message) or PostResult()

    chat.see(10, PAUSED, replace(PAUSED, message="403"))

    assert told == ["401; 403"]


def test_a_message_that_is_not_taken_is_tried_again_ever_later_and_said_to_fail():
    chat = Chat()
    chat.result = PostResult("it answered 404")

    assert len(chat.see(130, PAUSED)) == 8
    assert (chat.table.failing.tries, chat.table.failing.reason) == (8, "it answered 404")
    chat.result = PostResult()
    assert chat.see(70, PAUSED) == ["problem"]
    assert chat.table.failing is None


def test_what_was_over_while_no_message_was_taken_is_told_to_be_over():
    chat = Chat()
    chat.result = PostResult("the connection was refused")
    chat.see(20, PAUSED)
    chat.result = PostResult()

    assert chat.see(60)[-1:] == ["problem_over"]


def test_a_message_without_an_answer_is_sent_once_more():
    chat = Chat()
    chat.result = PostResult("it does not answer", is_in_doubt=True)

    assert chat.see(600, PAUSED) == ["problem", "problem"]


def test_a_clock_that_was_set_back_silences_nobody():
    chat = Chat()
    chat.see(2, PAUSED)
    chat.now_ms -= 3_600_000

    assert chat.see(10, PAUSED) == ["problem"]
    assert chat.see(20) == ["problem_over"]


@pytest.mark.parametrize(("seconds", "told"), [(5, []), (10, ["problem"])])
def test_redis_has_to_be_away_for_longer_than_a_restart_takes(seconds, told):
    assert Chat(least_ms=5_000, after_seconds=0.0).see(seconds, PAUSED) == told


def test_the_table_is_bounded():
    chat = Chat()
    jobs = [replace(PAUSED, subject=f"job-{number}") for number in range(MOST_OPEN + 100)]

    chat.see(3, *jobs)

    assert len(chat.table.problems) == MOST_OPEN

"""What may be dropped: only what was announced for long enough, while somebody could be told."""

from hypothesis import given
from hypothesis import strategies as st

from segrelay.ops.state.retention import (
    LONGEST_PAUSE_MS,
    MARKS,
    Limit,
    Mark,
    RetentionState,
    droppable_before_ms,
    limits_of,
    marked,
    times_of,
)
from segrelay.worker.contract.settings.sections import RetentionSettings

DAY = 86_400_000
NOW = 1_800_000_000_000
LIMIT = Limit(90 * DAY, 7 * DAY)
EVERY = LONGEST_PAUSE_MS
"""The time between two steps of a worker that runs."""


def run(marks, limit=LIMIT, *, since_ms=NOW, for_ms):
    """Let steps be done for a time; return the marks and the time of the last step."""
    now_ms = since_ms
    while now_ms < since_ms + for_ms:
        marks = marked(marks, limit, now_ms=now_ms + EVERY, seen_ms=now_ms)
        now_ms += EVERY
    return marks, now_ms


def test_what_was_announced_for_the_time_of_the_warning_may_go():
    marks, now_ms = run([], for_ms=7 * DAY + EVERY)

    assert now_ms - 90 * DAY - DAY < droppable_before_ms(marks, LIMIT, now_ms)
    assert droppable_before_ms(marks, LIMIT, now_ms) <= now_ms - 90 * DAY


def test_a_worker_that_runs_for_years_keeps_few_marks_and_is_late_by_less_than_a_part():
    marks, now_ms = run([], for_ms=100 * DAY)

    assert len(marks) <= MARKS + 1
    late_ms = now_ms - 90 * DAY - droppable_before_ms(marks, LIMIT, now_ms)
    assert 0 <= late_ms <= LIMIT.warning_ms / MARKS + EVERY


def test_a_clock_that_is_set_back_keeps_no_mark_from_the_future():
    marks, now_ms = run([], for_ms=10 * DAY)

    marks = marked(marks, LIMIT, now_ms=now_ms - 20 * DAY, seen_ms=now_ms)

    assert marks == [Mark(now_ms - 20 * DAY, now_ms - 103 * DAY)]


def test_a_shorter_time_is_announced_before_it_holds():
    marks, now_ms = run([], for_ms=20 * DAY)
    shorter = Limit(10 * DAY, 7 * DAY)

    marks = marked(marks, shorter, now_ms=now_ms, seen_ms=now_ms)

    assert droppable_before_ms(marks, shorter, now_ms) <= now_ms - 83 * DAY
    marks, now_ms = run(marks, shorter, since_ms=now_ms, for_ms=7 * DAY + DAY // 2)
    assert droppable_before_ms(marks, shorter, now_ms) > now_ms - 11 * DAY


def test_a_longer_time_takes_back_what_was_announced():
    marks, now_ms = run([], Limit(10 * DAY, 7 * DAY), for_ms=20 * DAY)

    marks = marked(marks, LIMIT, now_ms=now_ms, seen_ms=now_ms)

    assert marks == [Mark(now_ms, now_ms - 83 * DAY)]


@given(
    st.lists(st.tuples(st.sampled_from(["runs", "stands"]), st.integers(1, 30)), max_size=12),
    st.integers(0, 200),
)
def test_nothing_goes_that_was_not_announced_for_as_long_by_steps(history, age_days):
    """A model: the time that steps have seen since a thing was announced is counted one by one."""
    died_ms = NOW - age_days * DAY
    marks, now_ms, announced_ms = [], NOW, None
    for what, hours in history:
        for _ in range(hours * 6 if what == "runs" else 1):
            pause_ms = EVERY if what == "runs" else hours * DAY
            marks = marked(marks, LIMIT, now_ms=now_ms + pause_ms, seen_ms=now_ms)
            if announced_ms is not None and pause_ms <= LONGEST_PAUSE_MS:
                announced_ms += pause_ms
            now_ms += pause_ms
            if announced_ms is None and died_ms < LIMIT.announced_before_ms(now_ms):
                announced_ms = 0
            if died_ms < droppable_before_ms(marks, LIMIT, now_ms):
                assert announced_ms is not None
                assert announced_ms >= LIMIT.warning_ms - EVERY
                assert now_ms - died_ms >= LIMIT.kept_ms


def test_a_time_that_is_shorter_than_the_warning_is_announced_from_the_beginning():
    limits = limits_of(RetentionSettings(dead_letters="1d", quarantine="0s", history="0s"))

    assert limits == {"dead letters": Limit(DAY, DAY)}
    assert limits["dead letters"].announced_before_ms(NOW) == NOW


def test_what_goes_soon_says_since_when_and_from_when_on():
    marks = [Mark(NOW - 2 * DAY, NOW - 85 * DAY)]

    known, late, new = (times_of(NOW - days * DAY, marks, LIMIT, NOW) for days in (86, 200, 84))

    assert known == late == (NOW - 83 * DAY, NOW - 2 * DAY, NOW + 5 * DAY)
    assert new == (NOW - 83 * DAY, NOW, NOW + 7 * DAY)


def test_the_state_comes_back_as_it_was():
    state = RetentionState(NOW, {"dead letters": [Mark(1, 2)]}, {"dead letters": 3}, {}, {})

    assert RetentionState.loads(state.dumps()) == state
    assert RetentionState.loads(b"") == RetentionState()

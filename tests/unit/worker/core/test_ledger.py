"""What the ledger remembers of a profile, and what follows for an event."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.worker.contract.ledger import Record
from segrelay.worker.contract.words import Direction, Skip
from segrelay.worker.core.ledger import (
    LedgerEvent,
    is_in_doubt,
    judge,
    knowledge,
    may_be_member,
    with_delivered,
    with_raised,
    with_tried,
    with_whole_list,
)
from tests.ledger_keys import ledger_event

ENTER, EXIT, CHANGE = Direction.ENTER, Direction.EXIT, Direction.CHANGE
events = st.builds(
    ledger_event,
    st.integers(1, 9),
    st.sampled_from([ENTER, EXIT]),
    st.integers(1, 3),
    st.integers(1, 2),
)


def enter(at: int, *, trigger: int = 1, audience: int = 1, **more: Any) -> LedgerEvent:
    return ledger_event(at, ENTER, trigger, audience, **more)


def leave(at: int, *, trigger: int = 2, audience: int = 1, **more: Any) -> LedgerEvent:
    return ledger_event(at, EXIT, trigger, audience, **more)


def changed(profile_hash: int) -> LedgerEvent:
    return ledger_event(5, CHANGE, 1, 1, profile_hash=profile_hash)


def remembered(history: list[LedgerEvent | str]) -> Record:
    """Return the record of events that were delivered, or tried where the word stands before."""
    record, write = Record(), with_delivered
    for one in history:
        if isinstance(one, str):
            write = with_tried
        else:
            record = write(record, one)
    return record


@pytest.mark.parametrize(
    ("event", "doubt"),
    [
        (enter(5), True),
        (enter(4), True),
        (enter(6), False),
        (enter(5, replays=1), False),
        (enter(4, replays=1), False),
        (enter(5, trigger=2), False),
        (enter(5, audience=2), False),
        (leave(5, trigger=1), False),
    ],
)
def test_what_may_have_been_sent_is_in_doubt(event: LedgerEvent, doubt: bool) -> None:
    assert is_in_doubt(with_tried(Record(), enter(5)), event) is doubt


def test_a_replay_that_was_tried_is_in_doubt_again() -> None:
    record = with_tried(with_tried(Record(), enter(5)), enter(5, replays=1))

    assert is_in_doubt(record, enter(5, replays=1))
    assert not is_in_doubt(record, enter(5, replays=2))


@given(history=st.lists(st.tuples(events, st.sampled_from("dtr")), max_size=12))
def test_no_time_ever_goes_back(history: list[tuple[LedgerEvent, str]]) -> None:
    record = Record()
    write = {"d": with_delivered, "t": with_tried, "r": with_raised}
    for drawn, kind in history:
        trigger = 1 if drawn.header.direction is ENTER else 2
        event = drawn._replace(key=(drawn.key[0], trigger))
        after = write[kind](record, event)

        assert after.data_us >= record.data_us
        for key, item in record.items.items():
            assert after.items[key].delivered_us >= item.delivered_us
        record = after


@pytest.mark.parametrize(
    ("delivered", "event", "says"),
    [
        ([], enter(5), None),
        ([enter(5)], enter(5), Skip.DUPLICATE),
        ([enter(5)], enter(6), None),
        ([enter(5)], enter(4), Skip.SUPERSEDED),
        ([enter(5)], enter(4, trigger=3), None),
        ([leave(5)], enter(4), Skip.SUPERSEDED),
        ([leave(5)], enter(5), Skip.SUPERSEDED),
        ([enter(5)], leave(5), None),
        ([enter(5)], enter(6, state=True), Skip.ALREADY_THERE),
        ([enter(5)], enter(5, repair=True), None),
        ([enter(4), leave(5)], enter(6, state=True), None),
        ([enter(5), leave(4)], enter(6, state=True), Skip.ALREADY_THERE),
        ([enter(5, audience=2)], enter(6, state=True), None),
        ([changed(7)], changed(7), Skip.DUPLICATE),
        ([changed(7)], changed(8), None),
        ([enter(4), "tried", leave(5)], enter(6, state=True), None),
    ],
)
def test_a_ledger_says_what_need_not_be_delivered(
    delivered: list[LedgerEvent | str], event: LedgerEvent, says: Skip | None
) -> None:
    assert judge(remembered(delivered), event) is says


def test_a_state_event_is_sent_where_a_whole_list_was_told_since() -> None:
    record = with_whole_list(with_delivered(Record(), leave(3)), 4)

    assert judge(record, leave(5, state=True)) is None
    assert judge(with_delivered(record, leave(5)), leave(6, state=True)) is Skip.ALREADY_THERE


def test_a_whole_list_is_no_audience() -> None:
    record = with_whole_list(Record(), 4)

    known = knowledge(record, enter(3), frozenset)

    assert (known.inside, known.outside, known.stale) == (frozenset(), frozenset(), False)
    assert judge(record, enter(3)) is None


def test_memberships_are_what_is_newer_about_the_other_audiences() -> None:
    events = [enter(7, audience=2), leave(8, audience=3), enter(2, audience=4), leave(9)]

    known = knowledge(remembered(events), enter(5), frozenset)

    assert known.inside == {2}
    assert known.outside == {3}
    assert known.stale


@pytest.mark.parametrize(
    ("events", "stays"),
    [
        ([enter(5)], True),
        ([leave(5)], False),
        ([enter(5), leave(6)], False),
        ([enter(5), leave(5)], False),
        ([leave(5), enter(6)], True),
        ([enter(5), leave(6), enter(7, audience=2)], True),
        ([enter(5, trigger=3), enter(4), leave(5)], False),
        ([ledger_event(5, CHANGE, 1, 1)], False),
        # Who may have entered without an answer is kept as a member.
        ([leave(5), "tried", enter(6)], True),
        ([leave(5), "tried", enter(4)], False),
    ],
    ids=str,
)
def test_only_the_record_of_somebody_who_is_in_an_audience_has_to_last(
    events: list[LedgerEvent | str], stays: bool
) -> None:
    assert may_be_member(remembered(events)) is stays

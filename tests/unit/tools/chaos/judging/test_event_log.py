"""The verdict on Insider's event log: each newest event is in it, or its absence is explained."""

from segrelay.ops.state.person import LedgerLine
from segrelay.sandbox.people import Happening
from tools.chaos.verdict import LoggedEvent, is_told

ENTER = Happening("a@example.com", "vip", is_exit=False, time_us=10)


def line(at_us, *, raised=True):
    return LedgerLine("vip", "enter", "enter", at_us, 0, raised=raised)


def test_an_event_that_is_in_the_log_is_told():
    assert is_told(ENTER, [LoggedEvent(10, "vip", is_exit=False)], [])


def test_an_event_that_is_in_no_log_is_lost():
    assert not is_told(ENTER, [], [line(11)])
    assert not is_told(ENTER, [LoggedEvent(10, "newsletter", is_exit=False)], [line(11)])


def test_an_older_event_stands_for_it_only_where_the_ledger_was_raised():
    older = [LoggedEvent(5, "vip", is_exit=False)]

    assert is_told(ENTER, older, [line(11)])
    assert not is_told(ENTER, older, [line(11, raised=False)])
    assert not is_told(ENTER, [*older, LoggedEvent(6, "vip", is_exit=True)], [line(11)])

"""What the ledger says of a membership, and what a reader's answer makes of it."""

import pytest

from segrelay.ops.state.person import LedgerLine
from segrelay.ops.verify import expected
from segrelay.worker.contract.words import Direction

ENTER, EXIT, CHANGE = Direction.ENTER, Direction.EXIT, Direction.CHANGE
LISTS = {"enter": "list", "exit": "list", "exit-event": ""}


def line(trigger, direction, delivered_us, tried_us=0):
    return LedgerLine("vip", trigger, direction, delivered_us, tried_us, raised=False)


@pytest.mark.parametrize(
    ("lines", "partitions"),
    [
        ([line("enter", ENTER, 10)], ["inside"]),
        ([line("enter", ENTER, 10), line("exit", EXIT, 20)], ["outside"]),
        ([line("enter", ENTER, 20), line("exit", EXIT, 10)], ["inside"]),
        ([line("enter", ENTER, 10), line("exit", EXIT, 10)], ["outside"]),
        ([line("enter", ENTER, 10), line("exit-event", EXIT, 20)], ["inside"]),
        ([line("exit-event", EXIT, 20)], []),
        ([line("enter", ENTER, 10), line("exit", EXIT, 0, tried_us=20)], []),
        ([line("enter", ENTER, 30, tried_us=20)], ["inside"]),
        ([line("enter", CHANGE, 10)], []),
        ([line("gone", ENTER, 10)], []),
        ([line("enter", ENTER, 101)], []),
        ([], []),
    ],
)
def test_only_the_newest_sure_delivery_to_a_list_counts(lines, partitions):
    assert [one.expected for one in expected(lines, LISTS, until_us=100)] == partitions

"""Which of two events is the truth."""

import pytest

from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import LedgerEvent, supersedes

ENTER, EXIT, CHANGE = Direction.ENTER, Direction.EXIT, Direction.CHANGE


@pytest.mark.parametrize(
    ("newer", "older", "does"),
    [
        (LedgerEvent(5, EXIT, 1), LedgerEvent(4, ENTER, 2), True),
        (LedgerEvent(4, EXIT, 1), LedgerEvent(5, ENTER, 2), False),
        (LedgerEvent(5, ENTER, 1), LedgerEvent(4, ENTER, 1), True),
        (LedgerEvent(5, ENTER, 1), LedgerEvent(4, ENTER, 2), False),
        (LedgerEvent(5, EXIT, 1), LedgerEvent(5, ENTER, 2), True),
        (LedgerEvent(5, ENTER, 1), LedgerEvent(5, EXIT, 2), False),
        (LedgerEvent(5, ENTER, 1), LedgerEvent(5, ENTER, 1), False),
        (LedgerEvent(5, CHANGE, 1), LedgerEvent(4, CHANGE, 1), True),
        (LedgerEvent(5, CHANGE, 1), LedgerEvent(4, CHANGE, 2), False),
        (LedgerEvent(5, CHANGE, 1), LedgerEvent(4, ENTER, 2), False),
        (LedgerEvent(5, EXIT, 2), LedgerEvent(4, CHANGE, 1), False),
        (LedgerEvent(5, CHANGE, 1), LedgerEvent(5, CHANGE, 1), False),
    ],
)
def test_the_newer_beats_its_own_trigger_and_the_other_direction(
    newer: LedgerEvent, older: LedgerEvent, does: bool
) -> None:
    assert supersedes(newer, older) is does

"""Which of two events is the truth."""

import pytest

from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import LedgerEvent, is_superseded
from tests.ledger_keys import ledger_event

ENTER, EXIT, CHANGE = Direction.ENTER, Direction.EXIT, Direction.CHANGE


@pytest.mark.parametrize(
    ("newer", "older", "does"),
    [
        (ledger_event(5, EXIT, 1), ledger_event(4, ENTER, 2), True),
        (ledger_event(4, EXIT, 1), ledger_event(5, ENTER, 2), False),
        (ledger_event(5, ENTER, 1), ledger_event(4, ENTER, 1), True),
        (ledger_event(5, ENTER, 1), ledger_event(4, ENTER, 2), False),
        (ledger_event(5, EXIT, 1), ledger_event(5, ENTER, 2), True),
        (ledger_event(5, ENTER, 1), ledger_event(5, EXIT, 2), False),
        (ledger_event(5, ENTER, 1), ledger_event(5, ENTER, 1), False),
        (ledger_event(5, CHANGE, 1), ledger_event(4, CHANGE, 1), True),
        (ledger_event(5, CHANGE, 1), ledger_event(4, CHANGE, 2), False),
        (ledger_event(5, CHANGE, 1), ledger_event(4, ENTER, 2), False),
        (ledger_event(5, EXIT, 2), ledger_event(4, CHANGE, 1), False),
        (ledger_event(5, CHANGE, 1), ledger_event(5, CHANGE, 1), False),
    ],
)
def test_the_newer_beats_its_own_trigger_and_the_other_direction(
    newer: LedgerEvent, older: LedgerEvent, does: bool
) -> None:
    (_, _, direction, time_us, *_), (_, trigger), _ = newer

    assert is_superseded(older, time_us, direction, trigger) is does

"""Which of two events is the truth."""

import pytest

from segrelay.worker.contract.words import Direction
from segrelay.worker.core.supersede import Claim, supersedes

ENTER, EXIT, CHANGE = Direction.ENTER, Direction.EXIT, Direction.CHANGE


@pytest.mark.parametrize(
    ("newer", "older", "does"),
    [
        (Claim(5, EXIT, 1), Claim(4, ENTER, 2), True),
        (Claim(4, EXIT, 1), Claim(5, ENTER, 2), False),
        (Claim(5, ENTER, 1), Claim(4, ENTER, 1), True),
        (Claim(5, ENTER, 1), Claim(4, ENTER, 2), False),
        (Claim(5, EXIT, 1), Claim(5, ENTER, 2), True),
        (Claim(5, ENTER, 1), Claim(5, EXIT, 2), False),
        (Claim(5, ENTER, 1), Claim(5, ENTER, 1), False),
        (Claim(5, CHANGE, 1), Claim(4, CHANGE, 1), True),
        (Claim(5, CHANGE, 1), Claim(4, CHANGE, 2), False),
        (Claim(5, CHANGE, 1), Claim(4, ENTER, 2), False),
        (Claim(5, EXIT, 2), Claim(4, CHANGE, 1), False),
        (Claim(5, CHANGE, 1), Claim(5, CHANGE, 1), False),
    ],
)
def test_the_newer_beats_its_own_trigger_and_the_other_direction(
    newer: Claim, older: Claim, does: bool
) -> None:
    assert supersedes(newer, older) is does

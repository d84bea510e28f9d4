"""Which of two events is the truth."""

import pytest

from segrelay.worker.contract.words import Direction
from segrelay.worker.core.supersede import Claim, supersedes

ENTER, EXIT, CHANGE = Direction.ENTER, Direction.EXIT, Direction.CHANGE


@pytest.mark.parametrize(
    ("newer", "older", "does"),
    [
        (Claim(5, EXIT, "a"), Claim(4, ENTER, "b"), True),
        (Claim(4, EXIT, "a"), Claim(5, ENTER, "b"), False),
        (Claim(5, ENTER, "a"), Claim(4, ENTER, "a"), True),
        (Claim(5, ENTER, "a"), Claim(4, ENTER, "b"), False),
        (Claim(5, EXIT, "a"), Claim(5, ENTER, "b"), True),
        (Claim(5, ENTER, "a"), Claim(5, EXIT, "b"), False),
        (Claim(5, ENTER, "a"), Claim(5, ENTER, "a"), False),
        (Claim(5, CHANGE, "a"), Claim(4, CHANGE, "a"), True),
        (Claim(5, CHANGE, "a"), Claim(4, CHANGE, "b"), False),
        (Claim(5, CHANGE, "a"), Claim(4, ENTER, "b"), False),
        (Claim(5, EXIT, "b"), Claim(4, CHANGE, "a"), False),
        (Claim(5, CHANGE, "a"), Claim(5, CHANGE, "a"), False),
    ],
)
def test_the_newer_beats_its_own_trigger_and_the_other_direction(
    newer: Claim, older: Claim, does: bool
) -> None:
    assert supersedes(newer, older) is does

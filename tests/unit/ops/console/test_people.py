"""What a person's page answers first."""

import pytest

from segrelay.ops.console.people import answers_of, fold_tries
from segrelay.ops.state.person import KnownPerson, LedgerLine
from segrelay.ops.why import KnownProfile, Moment
from segrelay.worker.contract.words import Direction

OF = ("insider", "vip-enter", "vip", "enter")
LEDGER = {"insider": [LedgerLine("vip", "vip-enter", Direction.ENTER, 7, 0, raised=False)]}
DELIVERED, AGAIN = Moment(10, "delivered", *OF, 7), Moment(30, "skipped", *OF, 7, "duplicate")
DIED = Moment(50, "dead letter", *OF, 9, "a: refused: no")
OTHER = Moment(60, "delivered", "insider", "vip-event", "vip", "enter", 9)
TYPO = Moment(60, "quarantined", audience="typo", detail="r1: no_trigger")


@pytest.mark.parametrize(
    ("timeline", "answers"),
    [
        ([], [("delivered", "vip", 0)]),
        ([AGAIN, DELIVERED], [("delivered", "vip", 10)]),
        ([TYPO, OTHER, DIED], [("quarantined", "typo", 0), ("dead letter", "vip", 60)]),
    ],
    ids=["the log forgot it", "a duplicate tells nothing", "it died, and another"],
)
def test_each_audience_has_what_became_of_its_newest_event(timeline, answers):
    known = KnownProfile(KnownPerson(bytes(10), 0), ledger=LEDGER)

    found = [(last.what, last.audience, at_ms) for last, _, at_ms in answers_of(known, timeline)]

    assert found == answers


def test_tries_of_one_delivery_are_one_line():
    tries = [Moment(at_ms, "retry", *OF, 7, "answered 503") for at_ms in range(90, 20, -10)]

    assert fold_tries([DIED, *tries[:3], DELIVERED, *tries[3:]]) == [
        (DIED, 1, 50), (tries[0], 7, 30), (DELIVERED, 1, 10),
    ]  # fmt: skip

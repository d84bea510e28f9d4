"""What a profile's ledger takes: Redis needs about 70 bytes beside these for each."""

import pytest

from segrelay.worker.contract.ledger import Record, pack
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import LedgerEvent, with_delivered

TIME_US = 1_790_000_000_123_456
APART_US = 30 * 86_400_000_000
"""Times that are close to each other would take less."""
ENTER, EXIT, EXIT_EVENT = range(1, 4)
LEFT = [(1, ENTER, Direction.ENTER), *((1, t, Direction.EXIT) for t in (EXIT, EXIT_EVENT))]


@pytest.mark.parametrize(
    ("deliveries", "most_bytes"),
    [
        ([(1, ENTER, Direction.ENTER)], 9),
        ([(audience, ENTER, Direction.ENTER) for audience in (1, 2, 3)], 25),
        (LEFT, 25),
    ],
    ids=["one audience entered", "three audiences entered", "entered and left, three triggers"],
)
def test_a_ledger_is_small(deliveries, most_bytes):
    record = Record()
    for number, (audience, trigger, direction) in enumerate(deliveries):
        event = LedgerEvent(TIME_US + number * APART_US, direction, trigger, audience)
        record = with_delivered(record, event)

    assert len(pack(record)) <= most_bytes

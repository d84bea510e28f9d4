"""What a batch makes of an entry that was read."""

from types import SimpleNamespace
from typing import Any

import pytest

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.read import decode_deliveries
from segrelay.worker.contract.events import Header, encode_header, pack_profile
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import LedgerEvent

TEXT = b'{"email":"ann@example.com"}'
HEADER = Header(
    b"digest5678", "vip", Direction.CHANGE, 5, True, False, True, 1, replays=3, again=True
)


@pytest.mark.parametrize("direction", [Direction.CHANGE, Direction.ENTER])
def test_a_delivery_is_decoded_with_all_that_the_ledger_is_asked_for(direction: Direction) -> None:
    text = encode_header(HEADER._replace(direction=direction))
    numbers = SimpleNamespace(trigger=lambda _: 2, audience=lambda _: 7)
    state: Any = SimpleNamespace(drain=SimpleNamespace(numbers=numbers, triggers={"change": None}))
    delivery = Delivery.of("live|change", "1-0", text, pack_profile(TEXT))

    assert decode_deliveries([delivery], Batch(state)) == [delivery]

    checksum = PROTECTION.checksum(TEXT) if direction is Direction.CHANGE else 0
    assert delivery.event == LedgerEvent(delivery.header, (7, 2), checksum)

"""What a batch makes of the entries that were read: one that is of no use costs its own self."""

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


def entry(
    trigger: str, header: bytes = encode_header(HEADER), profile: bytes = pack_profile(TEXT)
) -> Delivery:
    return Delivery.of(f"live|{trigger}", "1-0", header, profile)


@pytest.mark.parametrize(
    ("broken", "dies", "stops"),
    [
        (entry("enter", b"nonsense"), "unreadable", []),
        (entry("enter", b'[2,{"of":"another version"}]'), "", ["enter"]),
        (entry("enter", profile=b"\x78broken"), "unreadable", []),
        (entry("unwanted"), "unwanted", []),
    ],
    ids=["no header", "another version", "no profile", "not wanted any more"],
)
def test_an_entry_of_no_use_is_left_out_and_the_next_one_decoded(
    broken: Delivery, dies: str, stops: list[str]
) -> None:
    broken.is_unwanted = broken.trigger == "unwanted"
    numbers = SimpleNamespace(trigger=lambda _: 2, audience=lambda _: 7)
    triggers = dict.fromkeys(("enter", "unwanted", "change"))
    state: Any = SimpleNamespace(drain=SimpleNamespace(numbers=numbers, triggers=triggers))
    batch, good = Batch(state), entry("change")

    assert decode_deliveries([broken, good], batch) == [good]

    assert [each.failure.reason for each in batch.failed if each.failure] == [dies] * bool(dies)
    assert list(batch.stopped) == stops
    checksum = PROTECTION.checksum(TEXT)
    assert good.event == LedgerEvent(5, Direction.CHANGE, 2, 7, True, True, checksum, 3, True)

"""What is published again where a request that came late may have undone something newer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from segrelay.worker.batch.conclude import repair, undone
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.contract.events import Header, decode_profile, pack_profile
from segrelay.worker.contract.ledger import Item, Record, pack
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import LedgerEvent

ENTER, EXIT, CHANGE = Direction.ENTER, Direction.EXIT, Direction.CHANGE
RECORD = Record(
    0,
    {
        (1, 1): Item(ENTER, 5),
        (1, 2): Item(EXIT, 7),
        (1, 3): Item(EXIT, 0, tried_us=8),
        (1, 4): Item(CHANGE, 9),
        (1, 5): Item(EXIT, 6),
        (1, 6): Item(EXIT, 7),
        (2, 1): Item(EXIT, 99),
    },
)
NAMES = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}


@pytest.mark.parametrize(
    ("direction", "time_us", "triggers"),
    [
        (ENTER, 5, ["two", "five"]),
        (ENTER, 7, ["two", "five"]),
        (ENTER, 8, []),
        (EXIT, 5, []),
        (CHANGE, 1, []),
    ],
)
def test_the_newest_direction_was_undone_by_an_older_one(
    direction: Direction, time_us: int, triggers: list[str]
) -> None:
    header = SimpleNamespace(direction=direction, time_us=time_us)
    late: Any = SimpleNamespace(header=header, event=SimpleNamespace(key=(1, 1)))

    assert [trigger for trigger, _ in undone(late, RECORD, NAMES)] == triggers
    assert not list(undone(late, Record(), NAMES))


class Partition:
    """Remembers what is written."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.accepted: list[Any] = []

    async def hold_back(self, *what: Any) -> None:
        self.held.append(what)

    async def peek(self, digests: list[bytes]) -> list[bytes]:
        return [pack(RECORD) for _ in digests]

    async def accept(self, deliveries: list[Any]) -> None:
        self.accepted += deliveries


@pytest.mark.parametrize("in_doubt", [True, False])
def test_a_repair_tells_its_own_time_and_starts_no_journey(in_doubt: bool) -> None:
    header = Header(b"d", "vip", ENTER, 5, state=True, skip_hook=False, repair=False, accepted_ms=1)
    told = {"id": "9", "event": "enter", "enter": "2026-01-01T00:00:00Z"}
    profile = pack_profile(orjson.dumps({"email": "ann@example.com", "segment_events": [told]}))
    late = Delivery("backfill|one", "one", "1-0", header, profile)
    late.event = LedgerEvent(header, (1, 0))
    partition, numbers = Partition(), SimpleNamespace(triggers=lambda: NAMES)
    drain = SimpleNamespace(partition=partition, numbers=numbers, late_seconds=30.0)
    request = SimpleNamespace(deliveries=(late,), intent="intent")
    batch: Any = SimpleNamespace(drain=drain)

    asyncio.run(repair(batch, request, in_doubt=in_doubt))  # type: ignore[arg-type]

    assert partition.held == [("intent", 30.0)] * in_doubt
    first, second = partition.accepted
    assert (first.lane, first.trigger, second.trigger) == ("live", "two", "five")
    assert first.header == header._replace(
        direction=EXIT, time_us=7, state=False, skip_hook=True, repair=True
    )
    [event] = orjson.loads(decode_profile(first.profile))["segment_events"]
    assert event == {"id": "9", "event": "exit", "exit": "1970-01-01T00:00:00.000007Z"}

"""What a settlement writes into the ledger: the record as it is when the script runs."""

import asyncio
from typing import Any

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.partition import ReadRange, Settlement
from segrelay.worker.batch.settle import Settler
from segrelay.worker.batch.state import State
from segrelay.worker.contract.ledger import Record, unpack
from segrelay.worker.contract.words import Direction, Skip
from segrelay.worker.core.ledger import with_delivered, with_raised
from segrelay.worker.core.supersede import LedgerEvent
from tests.fakes.fake_partition import FakePartition
from tests.fakes.partition_store import PartitionStore
from tests.unit.worker.drain_world import START_MS, event


class SlowPartition(FakePartition):
    """Settles as slowly as a Redis that is far away."""

    async def settle(self, settlement: Settlement) -> int:
        await asyncio.sleep(0.01)
        return await super().settle(settlement)


class NoClock:
    def seconds(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


async def _a_settlement_that_waits_for_another() -> tuple[Record, Record]:
    """Return what it has written, and what the drain knows by then."""
    partition = SlowPartition(PartitionStore(lambda: START_MS))
    await partition.accept([event("ada", "far")])
    holding = await partition.take()
    assert holding is not None
    state = State.of(holding, NoClock(), 30.0)
    streaks: Any = None
    numbers: Any = None
    batch = Batch(state, numbers)
    settler = Settler(batch, partition, streaks, ("insider", 0))
    [([skipped], _)] = await partition.read([ReadRange("live|enter", "", 2)])
    digest = skipped.header.digest
    known = with_delivered(Record(), LedgerEvent(3, Direction.ENTER, 1, 1))
    state.records[digest] = with_raised(known, LedgerEvent(5, Direction.ENTER, 1, 1))
    other = asyncio.ensure_future(settler.write(Settlement()))
    await asyncio.sleep(0)
    batch.skipped.append(skipped.skip(Skip.ALREADY_THERE, "", tells=True))
    waiting = asyncio.ensure_future(settler.settle_unsent())
    await asyncio.sleep(0)
    state.records[digest] = with_delivered(
        state.records[digest], LedgerEvent(9, Direction.ENTER, 1, 2)
    )
    await asyncio.gather(other, waiting)
    return unpack(partition.store.ledger(digest)), state.records[digest]


def test_what_is_settled_late_writes_the_ledger_as_it_is_by_then() -> None:
    written, known = asyncio.run(_a_settlement_that_waits_for_another())

    assert written == known
    assert written.items[1, 1].delivered_us == 5

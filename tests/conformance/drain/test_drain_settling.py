"""What a settlement writes into the ledger: the record as it is when the script runs."""

import asyncio
from typing import Any

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.partition import ReadRange, Settlement, State
from segrelay.worker.contract.ledger import Record, unpack
from segrelay.worker.contract.words import Direction, Skip
from segrelay.worker.core.ledger import with_delivered, with_raised
from tests.conformance.drain.test_reading_streams import drain_with
from tests.conformance.drain.world import World, event
from tests.ledger_keys import ledger_event


class Settling:
    """Settles as slowly as a Redis that is far away."""

    def __init__(self, partition: Any) -> None:
        self._partition = partition

    async def settle(self, settlement: Settlement) -> int:
        await asyncio.sleep(0.01)
        return await self._partition.settle(settlement)


async def _a_settlement_that_waits_for_another(world: World) -> tuple[Record, Record]:
    """Return what it has written, and what the drain knows by then."""
    partition = world.partition()
    await partition.accept([event("ada", "far")])
    holding = await partition.take()
    assert holding is not None
    batch = Batch(State.of(holding, drain_with(Settling(partition))))
    [([skipped], _)] = await partition.read([ReadRange("live|enter", "", 2)])
    digest = skipped.header.digest
    known = with_delivered(Record(), ledger_event(3, Direction.ENTER, 1, 1))
    batch.records[digest] = with_raised(known, ledger_event(5, Direction.ENTER, 1, 1))
    other = asyncio.ensure_future(batch.write(Settlement()))
    await asyncio.sleep(0)
    batch.skipped.append(skipped.skip(Skip.ALREADY_THERE, ""))
    waiting = asyncio.ensure_future(batch.settle_unsent())
    await asyncio.sleep(0)
    batch.records[digest] = with_delivered(
        batch.records[digest], ledger_event(9, Direction.ENTER, 1, 2)
    )
    await asyncio.gather(other, waiting)
    return unpack(world.store.ledger(digest)), batch.records[digest]


def test_what_is_settled_late_writes_the_ledger_as_it_is_by_then(make_world) -> None:
    world = make_world()
    written, known = world.run(_a_settlement_that_waits_for_another(world))

    assert written == known
    assert written.items[1, 1].delivered_us == 5

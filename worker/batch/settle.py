"""The settler: it alone writes the outcomes, waits and dead letters of a batch into Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.delivery import Delivery, Failure
from segrelay.worker.batch.partition import LedgerText, Partition, Settlement
from segrelay.worker.batch.responses import NO_RESPONSES, Responses
from segrelay.worker.contract.keys import PartitionKeys


class Streaks(Protocol):
    """Counts how many deliveries of a trigger died of one cause in a row, over all workers."""

    async def may_die(self, trigger: str, failure: Failure, count: int) -> int:
        """Return how many of `count` deliveries may die; unless all may, pause the trigger."""

    async def broken(self, trigger: str) -> None:
        """Start the count again, because a delivery of the trigger succeeded."""

    async def pause(self, trigger: str, failure: Failure) -> None:
        """Pause a trigger whose deliveries all die of the same cause."""

    async def stop(self, trigger: str, reason: str) -> None:
        """Pause a trigger for another reason than a cause of death."""


@dataclass(slots=True)
class Settler:
    """Settles for one batch, one script at a time.

    Args:
        keys: Of the partition.
    """

    batch: Batch
    partition: Partition
    streaks: Streaks
    keys: PartitionKeys
    responses: Responses = NO_RESPONSES
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def settle_unsent(self) -> bool:
        """Settle deliveries that need no request; returns whether there were any."""
        skipped, self.batch.skipped = self.batch.skipped, []
        failed, self.batch.failed = self.batch.failed, []
        settled = [*skipped, *await self.dead(failed)]
        if settled:
            await self.write(Settlement(settled=settled))
        return bool(settled)

    async def write(self, settlement: Settlement, *, tried: Iterable[bytes] = ()) -> int:
        """Write a settlement with ledgers; return the intent's end in doubt (ms), or 0.

        Ledgers are written as they are once all settlements before this one are written, so that
        none goes back.

        Args:
            settlement: Without ledgers: those of the profiles that it tells of are added.
            tried: Digests of the profiles of a request without a sure answer.
        """
        told = dict.fromkeys([d.digest for d in settlement.settled if d.tells])
        async with self._settling:
            records = self.batch.records
            ledgers = {digest: LedgerText.of(records[digest]) for digest in (*told, *tried)}
            whole = replace(
                settlement,
                ledgers=ledgers,
                responses=self.responses.of(settlement, self.batch.state.now_ms()),
            )
            end_ms = await self.partition.settle(whole)
        self._count(settlement.settled)
        return end_ms

    async def dead(self, failed: Sequence[Delivery]) -> list[Delivery]:
        """Make the dead letters of deliveries that failed, and return those that may die.

        What exceeds a streak of one cause stays in its stream.
        """
        groups: dict[tuple[str, str], list[tuple[Delivery, Failure]]] = {}
        for delivery in failed:
            assert delivery.failure is not None
            key = delivery.trigger, delivery.failure.cause
            groups.setdefault(key, []).append((delivery, delivery.failure))
        dead: list[Delivery] = []
        for (trigger, _), group in groups.items():
            failure = group[0][1]
            may = len(group)
            if failure.reason.effects.in_a_row:
                may = await self.streaks.may_die(trigger, failure, len(group))
            now_ms = self.batch.state.now_ms()
            for delivery, own in group[:may]:
                delivery.die(own, keys=self.keys, now_ms=now_ms)
                dead.append(delivery)
            if may < len(group):
                self.batch.leave(trigger)
        return dead

    async def stop(self) -> None:
        """Pause the triggers that can't go on; their deliveries stay in their streams."""
        for trigger, reason in self.batch.stopped.items():
            await self.streaks.stop(trigger, reason)
            self.batch.leave(trigger)

    def _count(self, settled: Sequence[Delivery]) -> None:
        self.batch.settled += len(settled)
        tally = self.batch.state.tally
        for delivery in settled:
            delivery.free_memory()
            if delivery.reason is None:
                tally.delivered += 1
            elif delivery.outcome == "skipped":
                tally.skipped += 1
            else:
                tally.dead += 1
        self.batch.state.forget_backoffs(delivery.position for delivery in settled)

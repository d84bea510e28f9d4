"""The settler: it alone writes the outcomes, waits and dead letters of a batch into Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import orjson

from segrelay.worker.batch.batch import Batch, CanaryShares
from segrelay.worker.batch.dead_letters import Failure, dead_letter_of
from segrelay.worker.batch.delivery import Parcel
from segrelay.worker.batch.partition import Delivery, LedgerText, Partition, Settled, Settlement
from segrelay.worker.batch.responses import NO_RESPONSES, Responses
from segrelay.worker.contract.words import Death
from segrelay.worker.destinations.api import Answer
from segrelay.worker.destinations.sending import NoAnswer


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
        tag: Destination and partition.
    """

    batch: Batch
    partition: Partition
    streaks: Streaks
    tag: tuple[str, int]
    responses: Responses = NO_RESPONSES
    canary_shares: CanaryShares = field(default_factory=CanaryShares)
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def settle_unsent(self) -> bool:
        """Settle deliveries that need no request; returns whether there were any."""
        skipped, self.batch.skipped = self.batch.skipped, []
        deaths, self.batch.deaths = self.batch.deaths, []
        settled = [*skipped, *await self.dead(deaths)]
        if settled:
            await self.write(Settlement(settled=settled))
        return bool(settled)

    async def write(self, settlement: Settlement, *, tried: Iterable[bytes] = ()) -> int:
        """Write a settlement with ledgers and history; return the intent's end in doubt (ms), or 0.

        Ledgers are written as they are once all settlements before this one are written, so that
        none goes back.

        Args:
            settlement: Without ledgers: those of the profiles that it tells of are added.
            tried: Digests of the profiles of a request without a sure answer.
        """
        told_of = (s for s in settlement.settled if s.remark)
        lines = (*settlement.history, *(self.line(s.delivery, s.kind, s.remark) for s in told_of))
        told = dict.fromkeys(s.delivery.header.digest for s in settlement.settled if s.tells)
        async with self._settling:
            ledgers = {
                digest: LedgerText.of(self.batch.state.records[digest])
                for digest in (*told, *tried)
            }
            whole = replace(
                settlement,
                ledgers=ledgers,
                history=lines,
                responses=self.responses.of(settlement, self.batch.state.now_ms()),
            )
            end_ms = await self.partition.settle(whole)
        self._count(settlement.settled)
        return end_ms

    async def dead(self, deaths: Sequence[tuple[Delivery, Failure]]) -> list[Settled]:
        """Return the outcomes of deaths; what exceeds a streak of one cause stays in its stream."""
        groups: dict[tuple[str, str], list[tuple[Delivery, Failure]]] = {}
        for delivery, failure in deaths:
            groups.setdefault((delivery.trigger, failure.cause), []).append((delivery, failure))
        settled: list[Settled] = []
        for (trigger, _), group in groups.items():
            # However many are in doubt, it is not the trigger's fault.
            if group[0][1].reason is Death.AMBIGUOUS:
                settled += [self.death(delivery, failure) for delivery, failure in group]
                continue
            may = await self.streaks.may_die(trigger, group[0][1], len(group))
            settled += [self.death(delivery, failure) for delivery, failure in group[:may]]
            if may < len(group):
                self.batch.leave(trigger)
        return settled

    async def stop(self) -> None:
        """Pause the triggers that can't go on; their deliveries stay in their streams."""
        for trigger, reason in self.batch.stopped.items():
            await self.streaks.stop(trigger, reason)
            self.batch.leave(trigger)

    def death(self, delivery: Delivery, failure: Failure) -> Settled:
        """Return the outcome of a delivery that died, with its letter."""
        dead_letter = dead_letter_of(
            delivery, failure, tag=self.tag, now_ms=self.batch.state.now_ms()
        )
        remark = f"{failure.reason.value}: cause {failure.cause}"
        answer = None
        if failure.status:
            answer = Answer(failure.status, failure.answer, headers=failure.headers)
        return Settled(
            delivery, failure.reason, dead_letter=dead_letter, remark=remark, answer=answer
        )

    def failure(
        self, parcel: Parcel, reason: Death, message: str, answer: Answer | NoAnswer | None
    ) -> Failure:
        """Return why a parcel died, with what was sent and answered."""
        backoff = self.batch.state.backoffs.get(parcel.delivery.place)
        template = parcel.route.template
        said = answer if isinstance(answer, Answer) else Answer(0, b"")
        return Failure(
            reason,
            message,
            template.content_hash if template else "",
            parcel.body,
            said.status,
            said.body,
            (backoff.failures if backoff else 0) + 1,
            said.headers,
        )

    def line(self, delivery: Delivery, outcome: str, remark: str) -> bytes:
        """Return a line of the history."""
        h = delivery.header
        return orjson.dumps(
            [
                self.batch.state.now_ms(),
                h.digest.hex(),
                h.audience,
                delivery.trigger,
                h.direction.value,
                h.time_us,
                outcome,
                remark,
            ]
        )

    def _count(self, settled: Sequence[Settled]) -> None:
        self.canary_shares.count(settled)
        self.batch.settled += len(settled)
        tally = self.batch.state.tally
        for outcome in settled:
            match outcome.kind:
                case "delivered":
                    tally.delivered += 1
                case "skipped":
                    tally.skipped += 1
                case _:
                    tally.dead += 1
        self.batch.state.forget_backoffs(outcome.delivery.place for outcome in settled)

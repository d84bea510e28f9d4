"""A partition with one event that is in no stream, so that a drain can send it alone.

The rest is the real partition: lease, ledger and notes. The event was never accepted, so nothing of
it is counted as delivered, skipped or dead, and no letter is written; the request is counted, and
the ledger learns of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from worker.batch.letters import Obituary
from worker.batch.partition import (
    Delivery,
    Hold,
    LedgerText,
    Note,
    Partition,
    ReadEntries,
    ReadRange,
    Release,
    Replacement,
    Settled,
    Settlement,
    TakenPartition,
)
from worker.batch.preparing.read import order_of
from worker.contract.events import encode_header
from worker.contract.redis.accept import NewDelivery
from worker.destinations.api import Answer
from worker.destinations.sending import NoAnswer, OutgoingRequest, Permit, Sender, granted
from worker.errors import FormatUnknown, UsageWrong


@dataclass(slots=True)
class OneEvent:
    """A drain's real partition, with one event in place of its streams."""

    partition: Partition
    delivery: Delivery
    settled: Settled | None = None
    _is_over: bool = False

    async def take(self) -> TakenPartition | None:
        """Take the lease, without the streams of other deliveries and their delays."""
        holding = await self.partition.take()
        streams = await self.streams()
        return holding and replace(holding, streams=streams, holds={}, waits={}, setbacks={})

    async def streams(self) -> tuple[str, ...]:
        """Return the event's stream; none once a request was made or the event is settled."""
        return () if self._is_over else (self.delivery.stream,)

    async def read(self, ranges: Sequence[ReadRange]) -> list[ReadEntries]:
        """Return the event for each range that begins before the event's id."""
        return [ReadEntries(self._behind(each.after_id), is_all=True) for each in ranges]

    def _behind(self, after_id: str) -> list[Delivery]:
        is_read = after_id and order_of(after_id) >= order_of(self.delivery.entry_id)
        return [] if is_read or self._is_over else [self.delivery]

    async def ledgers(
        self,
        digests: Sequence[bytes],
        rendering: Iterable[str] = (),  # noqa: ARG002 - no other worker could find it
    ) -> list[bytes | None]:
        """Read the packed ledger records of these profiles."""
        return await self.partition.ledgers(digests)

    async def peek(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """Read packed records without holding the lease."""
        return await self.partition.peek(digests)

    async def note(self, note: Note) -> int:
        """Write a note, renew the lease; returns now (ms, Redis' clock)."""
        self._is_over = True
        return await self.partition.note(note)

    async def open_notes(
        self, note_ids: Sequence[str], seconds: float, records: Mapping[bytes, LedgerText]
    ) -> int:
        """Open the notes of a lease holder that vanished; return the time of their end (ms)."""
        return await self.partition.open_notes(note_ids, seconds, records)

    async def settle(self, settlement: Settlement) -> int:
        """Settle, without delays for the event or its trigger."""
        end_ms = await self.partition.settle(replace(settlement, waits={}, setbacks={}))
        self.settled = next(iter(settlement.settled), self.settled)
        self._is_over = self._is_over or self.settled is not None
        return end_ms

    async def carry_over(self, replacements: Sequence[Replacement]) -> None:
        """Continue with the event under the new slug of its renamed audience."""
        for new in (new for each in replacements for new in each.new):
            if new.trigger == self.delivery.trigger:
                stream, entry_id = self.delivery.stream, self.delivery.entry_id
                header = encode_header(new.header)
                self.delivery = Delivery.of(stream, entry_id, header, new.profile)
                return
        former, trigger = replacements[0].old.header.audience, self.delivery.trigger
        raise UsageWrong(
            f"'{former}' was renamed, and '{trigger}' does not want its new name: try the event"
            " with a trigger that does."
        )

    async def forwards(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """Return the record of the person, if they are being renamed or were."""
        return await self.partition.forwards(digests)

    async def accept_in(self, partition: int, deliveries: Sequence[NewDelivery]) -> None:
        """Raise: the person was renamed, and the event has to be tried under the new identity."""
        del partition, deliveries
        raise UsageWrong(
            "This person was renamed, so nothing is sent under the former identity any more: try"
            " the event with the new one."
        )

    async def set_aside(self, stream: str, meaning: str, last_id: str) -> None:
        """Do nothing: the event stands in no stream."""

    async def hold_back(self, note: Note, seconds: float) -> None:
        """Open a note without holding the lease."""
        await self.partition.hold_back(note, seconds)

    async def release(
        self,
        holds: Mapping[str, Hold | None],  # noqa: ARG002 - of the stream that is not there
        paused: Iterable[str],
        *,
        suspects: Iterable[str] = (),
        meanings: Iterable[str] = (),
        keep_if_due: bool,  # noqa: ARG002 - what is due in Redis is the workers' work
    ) -> Release:
        """Give the lease of the partition back."""
        return await self.partition.release(
            {}, paused, suspects=suspects, meanings=meanings, keep_if_due=False
        )

    async def accept(self, deliveries: Sequence[NewDelivery]) -> None:
        """Add deliveries, such as a repair after the lease was lost."""
        await self.partition.accept(deliveries)


class NoStreaks:
    """A fake of the failure counts: an event that is tried pauses no trigger."""

    async def may_die(self, trigger: str, obituary: Obituary, count: int) -> int:  # noqa: ARG002
        """Allow all `count` dead letters."""
        return count

    async def broken(self, trigger: str) -> None:
        """Do nothing: no streak of failures was counted."""

    async def pause(self, trigger: str, obituary: Obituary) -> None:
        """Do nothing: a trial pauses no trigger."""

    async def stop(self, trigger: str, reason: str) -> None:  # noqa: ARG002
        """End the trial: another version of segrelay wrote the person's record."""
        raise FormatUnknown(reason)


@dataclass(slots=True)
class Recording:
    """A sender that remembers the last request and its answer."""

    sender: Sender
    request: OutgoingRequest | None = None
    answer: Answer | NoAnswer | None = field(default=None, repr=False)

    async def send(
        self, request: OutgoingRequest, deadline_seconds: float, permit: Permit = granted
    ) -> Answer | NoAnswer:
        """Send a request and remember it; see `Sender`."""
        self.request, self.answer = request, None
        self.answer = await self.sender.send(request, deadline_seconds, permit)
        return self.answer

    async def close(self) -> None:
        """Close the sender behind it."""
        await self.sender.close()

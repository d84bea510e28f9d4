"""Read batches from the streams that are due, merged by entry id, in small steps.

Entries that have to wait are passed over; up to which id everything in a stream waits is noted.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Hold, ReadEntries, ReadRange
from segrelay.worker.batch.state import State
from segrelay.worker.contract.keys import split_stream_name

if TYPE_CHECKING:
    from segrelay.worker.adapters.redis.partition import RedisPartition

BATCH_ENTRIES: Final = 2_000
"""The largest number of deliveries in a batch: a full request of 1,000 users for each direction."""
BATCH_ENTRIES_ONE_BY_ONE: Final = 100
"""The size of a batch where a request carries one user, so that a slice can send it."""
BATCH_BYTES: Final = 8_000_000
PASSED_OVER_AT_MOST: Final = 50_000
HELD_BACK_MS: Final = 60_000
"""The time in ms for which an older configuration holds back what it does not want."""
PREVIEW_ENTRIES: Final = 100
"""The number of deliveries that are read of a trigger whose next request carries only one.

If that fails again, the others were rendered for nothing; a few are read so that it is not always
the same one."""
_FIRST_STEP: Final = 32
"""The number of entries first read of one stream, while their size is not known."""
_LARGEST_STEP: Final = 500
_STEP_BYTES: Final = 2_000_000
"""The bytes that are read of all streams together in one round trip."""


@dataclass(slots=True, eq=False)
class _Source:
    """One stream while it is being read.

    Args:
        edition: The edition of the trigger.
    """

    stream: str
    trigger: str
    after_id: str
    hold: Hold | None
    edition: str = ""
    entries: deque[Delivery] = field(default_factory=deque)
    is_exhausted: bool = False
    only_waiting: bool = True
    step: int = 0

    @classmethod
    def of(cls, state: State, stream: str) -> Self:
        """Return a stream that is read from behind what has to wait in it."""
        hold = state.holds.get(stream)
        if hold and hold.until_ms <= state.now_ms():
            hold = None
        trigger = split_stream_name(stream)[1]
        after_id, edition = hold.last_id if hold else "", state.editions.get(trigger, "")
        return cls(stream, trigger, after_id, hold, edition)

    def take_in(self, found: ReadEntries) -> None:
        """Append the entries that were found."""
        self.is_exhausted = found.is_all
        self.entries.extend(found.entries)
        if found.entries:
            self.after_id = found.entries[-1].entry_id

    def pass_over(self, entry_id: str, until_ms: int) -> None:
        """Pass over an entry that waits; the hold grows while all entries before it wait."""
        if self.only_waiting:
            earliest = min(self.hold.until_ms, until_ms) if self.hold else until_ms
            self.hold = Hold(entry_id, earliest, self.edition)


def order_of(entry_id: str) -> tuple[int, int]:
    """Return the sort key of an entry id: its milliseconds and its sequence number."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


async def read_batch(
    reader: RedisPartition, state: State, streams: Sequence[str], *, entries: int
) -> list[Delivery]:
    """Read deliveries in the order of their arrival, up to a number of them or 8 MB.

    Args:
        reader: The partition.
        state: The drain's memory, which says who has to wait; its holds are brought up to date.
        streams: `lane|trigger`, of triggers that are due.
        entries: The largest number of entries.
    """
    reading = _Reading(reader, state, entries, {name: _Source.of(state, name) for name in streams})
    await reading.take_batch()
    for name, source in reading.sources.items():
        if source.hold != state.holds.get(name):
            state.set_hold(name, source.hold)
    return reading.deliveries


@dataclass(slots=True, eq=False)
class _Reading:
    """A reading of a batch from streams side by side.

    It takes as few round trips as the number and the sizes of the streams allow.

    Args:
        entries: The largest number of entries in a batch.
        sources: By the names of the streams.

    Attributes:
        deliveries: The batch, as far as it was read.
        _low: The number of entries in memory up to which a stream is read on when another one has
            none left. It is the last step: of hundreds of streams one runs dry again and again, and
            a round trip for each would take longer than reading ahead.
        _is_judged: What triggers want was asked for since the last entries were read: an id that
            they name may have got its slug just before an entry was accepted.
    """

    reader: RedisPartition
    state: State
    entries: int
    sources: dict[str, _Source]
    deliveries: list[Delivery] = field(default_factory=list)
    _low: int = 0
    _seen: int = 0
    _seen_bytes: int = 0
    _is_judged: bool = False

    async def _fill(self) -> None:
        """Read more of the streams of which few entries are left in memory."""
        longer = [source for source in self.sources.values() if not source.is_exhausted]
        wanted = [source for source in longer if len(source.entries) <= self._low]
        if not wanted:
            return
        # Streams without entries come first: something is read of them in any case.
        wanted.sort(key=lambda source: len(source.entries))
        step = self._low = self._step(len(longer))
        # A stream that runs dry alone has more than the others: its steps become longer.
        longest = self._step(len(wanted))
        for source in wanted:
            source.step = min(longest, max(step, 2 * source.step))
        ranges = [ReadRange(source.stream, source.after_id, source.step) for source in wanted]
        self._is_judged = False
        for source, found in zip(wanted, await self.reader.read(ranges), strict=True):
            source.take_in(found)
            self._seen += len(found.entries)
            self._seen_bytes += sum(e.size for e in found.entries)

    def _step(self, streams: int) -> int:
        """Return the number of entries to read next of each stream."""
        share = 1 + (self.entries - len(self.deliveries)) // streams
        if not self._seen:
            return min(_FIRST_STEP, share)
        fitting = int(_STEP_BYTES * self._seen / max(1, self._seen_bytes)) // streams
        return max(1, min(_LARGEST_STEP, share, fitting))

    async def take_batch(self) -> None:
        """Take the first entries of all streams that need not wait, as far as a batch goes."""
        sources, state = list(self.sources.values()), self.state
        await self._fill()
        heads = [
            (order_of(source.entries[0].entry_id), number)
            for number, source in enumerate(sources)
            if source.entries
        ]
        heapq.heapify(heads)
        batch = self.deliveries
        taken: Counter[str] = Counter()
        previews = {source.trigger for source in sources if state.is_preview(source.trigger)}
        size = passed_over = 0
        while heads and len(batch) < self.entries and size < BATCH_BYTES:
            number = heads[0][1]
            source = sources[number]
            delivery = source.entries.popleft()
            if not self._is_judged and state.is_unwanted(delivery):
                await state.judge_anew()
                self._is_judged = True
            if _is_left(state, source, delivery):
                passed_over += 1
                if passed_over >= PASSED_OVER_AT_MOST:
                    break
            else:
                source.only_waiting = False
                batch.append(delivery)
                size += len(delivery.profile)
                if previews and source.trigger in previews:
                    taken[source.trigger] += 1
            if previews and taken[source.trigger] >= PREVIEW_ENTRIES:
                source.is_exhausted = True
                heapq.heappop(heads)
                continue
            if not source.entries and not source.is_exhausted:
                await self._fill()
            if source.entries:
                heapq.heapreplace(heads, (order_of(source.entries[0].entry_id), number))
            else:
                heapq.heappop(heads)


def _is_left(state: State, source: _Source, delivery: Delivery) -> bool:
    """Say whether an entry stays in its stream, because it has to wait.

    What the trigger of an older configuration does not want waits for a process with the newest.
    """
    until_ms = state.waits_until_ms(delivery)
    delivery.is_unwanted = not until_ms and state.is_unwanted(delivery)
    if delivery.is_unwanted and not state.is_current(delivery.trigger):
        until_ms = state.now_ms() + HELD_BACK_MS
    if until_ms:
        source.pass_over(delivery.entry_id, until_ms)
    return bool(until_ms)


async def is_any_due(reader: RedisPartition, state: State, streams: Iterable[str]) -> bool:
    """Say whether any of the streams holds an entry behind those that have to wait."""
    sources = [_Source.of(state, stream) for stream in streams]
    found = await reader.read([ReadRange(source.stream, source.after_id, 1) for source in sources])
    return any(head.entries for head in found)


def is_full(batch: Sequence[Delivery], entries: int) -> bool:
    """Say whether there may be more to read behind a batch that was read with this limit."""
    return len(batch) >= entries or sum(len(each.profile) for each in batch) >= BATCH_BYTES

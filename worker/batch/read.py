"""Read a batch, decode it, ask the ledger, and pick the newest of competing events.

A batch comes from the streams that are due, merged by entry id, in small steps.

Entries that have to wait are passed over; up to which id everything in a stream waits is noted.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Self

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import (
    Hold,
    Intent,
    ReadEntries,
    ReadRange,
    State,
    trigger_at,
)
from segrelay.worker.contract.events import (
    UNKNOWN_FORMAT,
    decode_header,
    decode_profile,
)
from segrelay.worker.contract.keys import split_stream_name
from segrelay.worker.contract.ledger import Record, unpack_all
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.words import Death, Direction
from segrelay.worker.core.ledger import (
    LedgerEvent,
    contest,
    is_in_doubt,
    judge,
    with_raised,
    with_tried,
    with_whole_list,
)
from segrelay.worker.errors import Bug, FormatUnknown, PayloadRefused
from segrelay.worker.logs import log_bug

if TYPE_CHECKING:
    from segrelay.worker.adapters.redis.shared_keys import RedisNumbers

BATCH_ENTRIES_BESIDE_LIVE: Final = 1_000
"""The size of a backfill's batch while live work comes: who is in its partition waits for it."""
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
        if hold and not state.is_ahead(hold.until_ms):
            hold = None
        trigger = split_stream_name(stream)[1]
        edition = state.drain.triggers[trigger].edition
        return cls(stream, trigger, hold.last_id if hold else "", hold, edition)

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


async def read_batch(state: State, streams: Sequence[str], *, entries: int) -> list[Delivery]:
    """Read deliveries in the order of their arrival, up to a number of them or 8 MB.

    Args:
        state: The state of the lease's holder, which says who has to wait; its holds are brought up
            to date.
        streams: The names of streams (`lane|trigger`) whose triggers are due.
        entries: The largest number of entries.
    """
    reading = _Reading(state, entries, {name: _Source.of(state, name) for name in streams})
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
        sources: The streams that are read, by name.

    Attributes:
        deliveries: The batch, as far as it was read.
        _low: The number of entries in memory up to which a stream is read on when another one has
            none left. It is the last step: of hundreds of streams one runs dry again and again, and
            a round trip for each would take longer than reading ahead.
        _is_judged: What triggers want was asked for since the last entries were read: an id that
            they name may have got its slug just before an entry was accepted.
    """

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
        read = await self.state.drain.partition.read(ranges)
        for source, found in zip(wanted, read, strict=True):
            source.take_in(found)
            self._seen += len(found.entries)
            self._seen_bytes += sum(e.size for e in found.entries)

    def _step(self, streams: int) -> int:
        """Return the number of entries to read next of each stream."""
        taken = len(self.deliveries)
        # Where much is passed over, the steps stay large although the batch is nearly full.
        held = sum(len(source.entries) for source in self.sources.values())
        share = 1 + max(self.entries - taken, self._seen - taken - held) // streams
        if not self._seen:
            return min(_FIRST_STEP, share)
        fitting = int(_STEP_BYTES * self._seen / max(1, self._seen_bytes)) // streams
        return max(1, min(_LARGEST_STEP, share, fitting))

    async def take_batch(self) -> None:
        """Take the first entries of all streams that need not wait, as far as a batch goes."""
        state, batch = self.state, self.deliveries
        taken: Counter[str] = Counter()
        size = passed_over = 0
        while len(batch) < self.entries and size < BATCH_BYTES:
            await self._fill()
            ready = self._ready()
            if not ready:
                return
            for source, delivery in ready:
                if len(batch) >= self.entries or size >= BATCH_BYTES:
                    return
                if taken[source.trigger] >= PREVIEW_ENTRIES and state.is_preview(source.trigger):
                    source.is_exhausted = True
                    continue
                if not self._is_judged and state.is_unwanted(delivery):
                    await state.judge_anew()
                    self._is_judged = True
                if _is_left(state, source, delivery):
                    passed_over += 1
                    if passed_over >= PASSED_OVER_AT_MOST:
                        return
                    continue
                source.only_waiting = False
                batch.append(delivery)
                size += len(delivery.profile)
                taken[source.trigger] += 1

    def _ready(self) -> list[tuple[_Source, Delivery]]:
        """Take out the entries before which none can come any more, in the order of arrival."""
        sources = self.sources.values()
        ends = [order_of(source.after_id) for source in sources if not source.is_exhausted]
        last = min(ends, default=(math.inf, 0))
        ready = []
        for number, source in enumerate(sources):
            while source.entries:
                order = order_of(source.entries[0].entry_id)
                if order > last:
                    break
                ready.append((order, number, source, source.entries.popleft()))
        ready.sort(key=itemgetter(0, 1))
        return [(source, delivery) for _, _, source, delivery in ready]


def _is_left(state: State, source: _Source, delivery: Delivery) -> bool:
    """Say whether an entry stays in its stream, because it has to wait.

    What the trigger of an older configuration does not want waits for a process with the newest.
    """
    until_ms = state.waits_until_ms(delivery)
    delivery.is_unwanted = not until_ms and state.is_unwanted(delivery)
    if delivery.is_unwanted and delivery.trigger not in state.current:
        until_ms = state.now_ms() + HELD_BACK_MS
    if until_ms:
        source.pass_over(delivery.entry_id, until_ms)
    return bool(until_ms)


async def is_any_due(state: State, streams: Iterable[str]) -> bool:
    """Say whether any of the streams holds an entry behind those that have to wait."""
    sources = [_Source.of(state, stream) for stream in streams]
    heads = [ReadRange(source.stream, source.after_id, 1) for source in sources]
    found = await state.drain.partition.read(heads)
    return any(head.entries for head in found)


def is_full(batch: Sequence[Delivery], entries: int) -> bool:
    """Say whether there may be more to read behind a batch that was read with this limit."""
    return len(batch) >= entries or sum(len(each.profile) for each in batch) >= BATCH_BYTES


OPEN_BYTES: Final = 32_000_000
"""The bytes of profiles, decompressed, that a batch may hold; the rest stays in its streams."""
_NOT_WANTED: Final = "Its trigger has another direction or other audiences now."
_IN_DOUBT: Final = "An earlier request got no sure answer: this event may have been delivered."


def ledgers_after(
    intents: Sequence[Intent], texts: Mapping[bytes, bytes | None], numbers: RedisNumbers
) -> dict[bytes, Record]:
    """Return, by digest, the ledgers after requests whose result nobody knows.

    Ledgers that can't be read are left as they are.
    """
    records, _ = unpack_all(texts)
    for intent in intents:
        for position, header in intent.deliveries:
            if header.digest not in records:
                continue
            trigger = numbers.trigger(trigger_at(position))
            event = LedgerEvent(header, (numbers.audience(header.audience), trigger))
            tried = with_tried(records[header.digest], event)
            records[header.digest] = with_whole_list(tried, header.time_us)
    return records


async def decode_batch(batch: Batch) -> list[Delivery]:
    """Decode the deliveries of a batch; see `decode_deliveries`."""
    audiences = {d.header.audience for d in batch.deliveries if d.header.audience}
    await batch.drain.numbers.learn(audiences, {d.trigger for d in batch.deliveries})
    return decode_deliveries(batch.deliveries, batch)


def decode_deliveries(deliveries: Sequence[Delivery], batch: Batch) -> list[Delivery]:
    """Decode deliveries. Unreadable ones die; those beyond `OPEN_BYTES` stay in their streams."""
    decoded: list[Delivery] = []
    size = 0
    numbers, keys = batch.drain.numbers, dict[tuple[str, str], tuple[int, int]]()
    for delivery in deliveries:
        if size > OPEN_BYTES:
            break
        if delivery.header is UNKNOWN_FORMAT:
            batch.stopped[delivery.trigger] = _why_unknown(delivery)
            continue
        if delivery.header.is_broken:
            message = "The entry can't be read: it is damaged."
            batch.fail(delivery, Death.UNREADABLE, message)
            continue
        if delivery.is_unwanted:
            batch.fail(delivery, Death.UNWANTED, _NOT_WANTED)
            continue
        try:
            text = decode_profile(delivery.profile)
        except PayloadRefused as error:
            batch.fail(delivery, Death.UNREADABLE, error.message)
            continue
        size += len(text)
        trigger, header = delivery.trigger, delivery.header
        key = keys.get((trigger, header.audience))
        if key is None:
            key = (numbers.audience(header.audience), numbers.trigger(trigger))
            keys[trigger, header.audience] = key
        delivery.text, delivery.superseded = text, ()
        delivery.loaded = batch.drain.triggers[trigger]
        is_change = header.direction is Direction.CHANGE
        checksum = PROTECTION.checksum(text) if is_change else 0
        delivery.event = LedgerEvent(header, key, checksum)
        decoded.append(delivery)
    return batch.left(decoded)


def _why_unknown(delivery: Delivery) -> str:
    try:
        PROTECTION.unseal(delivery.profile, decode_header(delivery.header_text).digest)
    except FormatUnknown as error:
        return error.message
    raise Bug(f"The entry {delivery.position} has a format that is known.")


def unpack_ledgers(
    deliveries: Sequence[Delivery],
    texts: Mapping[bytes, bytes | None],
    batch: Batch,
) -> list[Delivery]:
    """Unpack the ledgers of a batch. If one is damaged, the events of its profile are dead.

    If another version wrote one, the triggers of its profile's events are stopped.
    """
    batch.records, unreadable = unpack_all(texts)
    damaged: dict[bytes, str] = {}
    for digest, error in unreadable.items():
        if not isinstance(error, FormatUnknown):
            damaged[digest] = log_bug(error, "ledger.unreadable", profile=digest.hex())
    left: list[Delivery] = []
    for delivery in deliveries:
        match unreadable.get(delivery.digest):
            case None:
                left.append(delivery)
            case FormatUnknown(message=why):
                batch.stopped[delivery.trigger] = why
            case _:
                message = f"The ledger of its profile can't be read. {damaged[delivery.digest]}"
                batch.fail(delivery, Death.UNREADABLE, message)
    return batch.left(left)


def ask_ledger(deliveries: Sequence[Delivery], batch: Batch) -> list[Delivery]:
    """Skip the deliveries that the ledger makes unnecessary, and return the others.

    If `on_ambiguous` says so, what may have been sent before becomes a dead letter.
    """
    left: list[Delivery] = []
    for delivery in deliveries:
        if skip_by_ledger(delivery, batch):
            continue
        record = batch.records[delivery.digest]
        if delivery.loaded.on_ambiguous == "dead_letter" and is_in_doubt(record, delivery.event):
            batch.fail(delivery, Death.AMBIGUOUS, _IN_DOUBT)
        else:
            left.append(delivery)
    return left


def skip_by_ledger(delivery: Delivery, batch: Batch) -> bool:
    """Skip a delivery that the ledger makes unnecessary, and say whether it does.

    A state event that says what is known already raises the ledger's time. It does so at once,
    because the events that are judged after it have to be compared with that time.
    """
    records = batch.records
    record = records[delivery.digest]
    reason = judge(record, delivery.event)
    if reason is None:
        return False
    if reason.effects.updates_ledger:
        records[delivery.digest] = with_raised(record, delivery.event)
    batch.skipped.append(delivery.skip(reason, reason.value))
    return True


def contend(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Return the events of the batch that no other supersedes, each with those it supersedes."""
    about = ((each.digest, each.event.key[0]) for each in deliveries)
    events = [each.event for each in deliveries]
    going: list[Delivery] = []
    for delivery, older in contest(list(zip(about, events, deliveries, strict=True))):
        delivery.superseded = older
        going.append(delivery)
    return going

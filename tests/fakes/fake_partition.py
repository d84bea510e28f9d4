"""`FakePartition`: a partition in memory, on a clock of the caller's; proved by conformance tests.

Several holders share one `PartitionStore`, as several workers share the keys of a partition. Each
method does what the script of its name does.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from segrelay.worker.batch.delivery import DeadLetter, Delivery
from segrelay.worker.batch.partition import (
    Hold,
    Intent,
    LedgerText,
    ReadEntries,
    ReadRange,
    Release,
    Replacement,
    Settlement,
    TakenPartition,
)
from segrelay.worker.batch.read import order_of
from segrelay.worker.contract.events import encode_header
from segrelay.worker.contract.keys import (
    REACHED_KEPT,
    outcome_field,
    split_stream_name,
    stream_name,
)
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.words import LIVE, job_of_lane
from segrelay.worker.errors import LeaseLost
from tests.fakes.partition_store import PartitionStore

_READ_BYTES = 4_000_000
NEVER_MS = 1 << 60
LEEWAY_MS = 600_000
"""How much longer than its retention a ledger is kept; see `_lapsing.lua`."""
WOKEN = "1"
MISSED = "2"
WOKEN_FOR_BACKFILL = "3"
"""Whoever was woken came while somebody held the lease, and went."""


class FakePartition:
    """One holder of a partition in memory; see `segrelay.worker.batch.partition.Partition`.

    Args:
        store: Shared by all holders.
        lease_seconds: How long a lease holds without being renewed.
        retention_seconds: How long the ledger of somebody who is in no audience is kept after
            its last write.
        late_seconds: For how long an intent is open.
    """

    def __init__(
        self,
        store: PartitionStore,
        *,
        lease_seconds: float = 10.0,
        retention_seconds: float = 1e6,
        late_seconds: float = 30.0,
    ) -> None:
        self.store = store
        self.token = secrets.token_hex(8)
        self._lease_ms = round(lease_seconds * 1000)
        self._retention_ms = round(retention_seconds * 1000)
        self._late_ms = round(late_seconds * 1000)

    async def take(self) -> TakenPartition | None:
        """Take the lease if it is free; clears the wake-up."""
        store, now_ms = self.store, self.store.now_ms()
        # Outlives a clock that was set back.
        store.until_ms = min(store.until_ms, now_ms + store.length_ms)
        if store.token not in {"", self.token} and store.until_ms > now_ms:
            store.wakeup = MISSED if store.wakeup else ""
            return None
        store.token, store.until_ms, store.wakeup = self.token, now_ms + self._lease_ms, ""
        store.length_ms = self._lease_ms
        for intent_id in [intent_id for intent_id, end in store.open.items() if end <= now_ms]:
            del store.open[intent_id]
            store.intents.pop(intent_id, None)
        latest_ms = now_ms + self._late_ms
        store.open = {intent_id: min(end, latest_ms) for intent_id, end in store.open.items()}
        return TakenPartition(
            now_ms=now_ms,
            streams=tuple(sorted(store.streams)),
            intents=tuple(
                Intent.loads(intent_id, text, store.open.get(intent_id, 0))
                for intent_id, text in store.intents.items()
            ),
            rendering=frozenset(store.rendering),
            waits=dict(store.retry),
            backoffs=dict(store.aside),
            holds=dict(store.holds),
            reached_up_to=max(store.reached) if len(store.reached) >= REACHED_KEPT else "",
            orphans=dict(store.orphans),
            has_forwards=bool(store.forwards),
        )

    def renew(self) -> bool:
        """Renew the lease, as the thread does; False if somebody else holds it."""
        if self.store.token != self.token:
            return False
        self.store.until_ms = self.store.now_ms() + self._lease_ms
        return True

    async def streams(self) -> tuple[str, ...]:
        """Return the names of the streams that are not empty, now."""
        return tuple(sorted(self.store.streams))

    async def read(self, ranges: Sequence[ReadRange]) -> list[ReadEntries]:
        """Read the next entries of several streams."""
        found: list[ReadEntries] = []
        left = _READ_BYTES
        for wanted in ranges:
            count = wanted.most if left > 0 else 1
            rows = self._behind(wanted)[:count]
            left -= sum(len(b"hp") + row.size for row in rows)
            found.append(ReadEntries(rows, len(rows) < count))
        return found

    def _behind(self, wanted: ReadRange) -> list[Delivery]:
        """Return the entries behind an id, each as a record of its own, as Redis does."""
        rows = list(self.store.streams.get(wanted.stream, {}).values())
        after = order_of(wanted.after_id) if wanted.after_id else (-1, 0)
        behind = rows[bisect_right(rows, after, key=lambda row: order_of(row.entry_id)) :]
        return [replace(row) for row in behind[: wanted.most + 1]]

    async def ledgers(
        self, digests: Sequence[bytes], rendering: Iterable[str] = ()
    ) -> list[bytes | None]:
        """Read packed records, and write down what will be rendered."""
        self._check()
        positions = tuple(rendering)
        if positions:
            self.store.rendering = positions
        return [self.store.ledger(digest) for digest in digests]

    async def peek(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """Read packed records without holding the lease."""
        return [self.store.ledger(digest) for digest in digests]

    async def intent(self, intent: Intent) -> int:
        """Write an intent, renew the lease; returns now (ms, Redis' clock)."""
        self._check()
        now_ms = self.store.now_ms()
        self.store.until_ms = now_ms + self._lease_ms
        self.store.intents[intent.intent_id] = intent.dumps()
        self.store.rendering = ()
        return now_ms

    async def intents_in_doubt(
        self, intent_ids: Sequence[str], seconds: float, records: Mapping[bytes, LedgerText]
    ) -> int:
        """Open the intents of a holder that vanished; returns their end (ms)."""
        self._check()
        end_ms = self.store.now_ms() + round(seconds * 1000)
        fresh = [i for i in intent_ids if i in self.store.intents and i not in self.store.open]
        self.store.open.update(dict.fromkeys(fresh, end_ms))
        if fresh:
            for digest, text in records.items():
                self._write_ledger(digest, text)
        return end_ms

    async def settle(self, settlement: Settlement) -> int:
        """Settle, once however often it is called."""
        self._check()
        store, intent_id = self.store, settlement.intent_id
        if intent_id and (intent_id not in store.intents or intent_id in store.open):
            return store.open.get(intent_id, 0)
        removed = [delivery for delivery in settlement.settled if self._remove(delivery)]
        told = {delivery.digest for delivery in removed if delivery.tells}
        for digest, text in settlement.ledgers.items():
            if intent_id or digest in told:
                self._write_ledger(digest, text)
        opens = bool(intent_id) and settlement.open_seconds > 0
        for trigger, wait in settlement.waits.items():
            if wait:
                store.retry[trigger] = wait
            else:
                store.retry.pop(trigger, None)
        store.aside.update(
            {
                position: backoff
                for position, backoff in settlement.backoffs.items()
                if store.holds_entry(position)
            }
        )
        if intent_id or removed:
            store.counts.update(settlement.counts)
        store.history += settlement.history
        everybody = sorted({**store.reached, **settlement.reached}.items())
        store.reached = dict(everybody[:REACHED_KEPT])
        if intent_id or removed:
            store.responses += settlement.responses
        store.rendering = ()
        return self._end_note(intent_id, settlement.open_seconds if opens else 0.0)

    def _end_note(self, intent_id: str, open_seconds: float) -> int:
        if open_seconds:
            self.store.open[intent_id] = self.store.now_ms() + round(open_seconds * 1000)
            return self.store.open[intent_id]
        self.store.intents.pop(intent_id, None)
        return 0

    def _remove(self, delivery: Delivery) -> bool:
        """Take an entry out; what was not there any more changes nothing."""
        store = self.store
        entries = store.streams.get(delivery.stream, {})
        if entries.pop(delivery.entry_id, None) is None:
            return False
        store.count_down(delivery.stream, delivery.entry_id)
        if not entries:
            del store.streams[delivery.stream]
        store.counts[delivery.counted_as] += 1
        job = job_of_lane(split_stream_name(delivery.stream)[0])
        if job:
            store.counts[f"job|{job}|{delivery.outcome}"] += 1
            if delivery.reason:
                store.counts[f"job|{job}|{delivery.outcome}|{delivery.reason.value}"] += 1
            store.jobtimes[f"{job}|{store.now_ms() // 60_000}|{delivery.outcome}"] += 1
        store.aside.pop(delivery.position, None)
        if delivery.dead_letter:
            self._keep(delivery.dead_letter)
        return True

    def _keep(self, dead_letter: DeadLetter) -> None:
        self.store.dead_letters[dead_letter.dead_letter_id] = dead_letter.text
        self.store.causes.setdefault(dead_letter.cause, dead_letter.sample)
        self.store.cause_counts[dead_letter.cause] += 1

    async def set_aside(self, stream: str, scope: str, last_id: str) -> None:
        """Write down up to which entry a trigger that means this wants nothing of its stream."""
        self._check()
        store, name = self.store, f"{stream}|{scope}"
        known = order_of(store.orphans.get(name, "0-0"))
        new = [i for i in store.streams.get(stream, {}) if known < order_of(i) <= order_of(last_id)]
        if new:
            store.orphans[name] = new[-1]
            store.orphan_counts[name] += len(new)

    async def hold_back(self, intent: Intent, seconds: float) -> None:
        """Open an intent without holding the lease; no delivery of it may go on before its end."""
        nobodys = tuple(delivery._replace(position="") for delivery in intent.deliveries)
        held = Intent(f"{intent.intent_id}-repair", nobodys)
        self.store.intents[held.intent_id] = held.dumps()
        self.store.open[held.intent_id] = self.store.now_ms() + round(seconds * 1000)

    async def release(
        self,
        holds: Mapping[str, Hold | None],
        paused: Iterable[str],
        *,
        suspects: Iterable[str] = (),
        scopes: Iterable[str] = (),
        keep_if_due: bool,
    ) -> Release:
        """Give the lease back, and say whether there is more to do."""
        store = self.store
        if store.token != self.token:
            return Release(released=False, due=False, wake="")
        store.rendering = tuple(suspects)
        for name, hold in holds.items():
            if hold:
                store.holds[name] = hold
            else:
                store.holds.pop(name, None)
        due = store.due(frozenset(paused), scopes)
        if due and keep_if_due:
            return Release(released=False, due=True, wake="")
        store.token, store.until_ms = "", 0
        wake = "" if store.wakeup in {WOKEN, WOKEN_FOR_BACKFILL} else due
        if wake:
            store.wakeup = WOKEN if wake == LIVE else WOKEN_FOR_BACKFILL
        elif not due:
            store.wakeup = store.wakeup.replace(MISSED, "")
        return Release(released=True, due=bool(due), wake=wake)

    async def carry_over(self, replacements: Sequence[Replacement]) -> None:
        """Put deliveries in the place of others that are still there."""
        self._check()
        for old, new in replacements:
            entries = self.store.streams.get(old.stream, {})
            if entries.pop(old.entry_id, None) is None:
                continue
            if not entries:
                self.store.streams.pop(old.stream, None)
            self.store.aside.pop(old.position, None)
            self._count_accepted(old.stream, -1)
            for each in new:
                name = stream_name(each.lane, each.trigger)
                self._add(name, each)
                self._count_accepted(name, 1)

    def _add(self, stream: str, new: NewDelivery) -> None:
        entry_id, header = self.store.next_id(), encode_header(new.header)
        delivery = Delivery.of(stream, entry_id, header, new.profile)
        self.store.streams.setdefault(stream, {})[entry_id] = delivery

    def _count_accepted(self, stream: str, amount: int) -> None:
        self.store.counts[outcome_field("accepted", stream)] += amount
        if job := job_of_lane(split_stream_name(stream)[0]):
            self.store.counts[f"job|{job}|accepted"] += amount

    async def forwards(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """Return the records of people who are being renamed, or were."""
        return [self.store.forwards.get(digest) for digest in digests]

    async def accept_in(self, partition: int, deliveries: Sequence[NewDelivery]) -> None:
        """Add deliveries to another partition; needs no lease."""
        self.store.elsewhere.setdefault(partition, []).extend(deliveries)

    async def accept(self, deliveries: Sequence[NewDelivery]) -> None:
        """Add deliveries; needs no lease."""
        for new in deliveries:
            name = stream_name(new.lane, new.trigger)
            self._add(name, new)
            self.store.counts[outcome_field("accepted", name)] += 1
        live = any(new.lane == LIVE for new in deliveries)
        if deliveries and (
            not self.store.wakeup or (live and self.store.wakeup == WOKEN_FOR_BACKFILL)
        ):
            self.store.wakeup = WOKEN if live else WOKEN_FOR_BACKFILL

    def _write_ledger(self, digest: bytes, ledger: LedgerText) -> None:
        lapses_ms = self.store.now_ms() + self._retention_ms + LEEWAY_MS
        self.store.ledgers[digest] = (ledger.text, NEVER_MS if ledger.lasts else lapses_ms)

    def _check(self) -> None:
        if self.store.token != self.token:
            raise LeaseLost("The lease was taken over by another worker.")

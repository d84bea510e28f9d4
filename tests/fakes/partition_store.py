"""The store of a partition in memory, which its fakes share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Hold
from segrelay.worker.batch.read import order_of
from segrelay.worker.contract.keys import split_stream_name
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.words import BACKFILL, LIVE
from segrelay.worker.core.backoff import Backoff, Wait


@dataclass(slots=True)
class PartitionStore:
    """What Redis keeps of one partition; the names are those of its keys.

    Args:
        now_ms: Redis' clock.
        ledgers: By digest: the packed record, and when it lapses at the earliest (ms).
    """

    now_ms: Callable[[], int]
    streams: dict[str, dict[str, Delivery]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    jobtimes: Counter[str] = field(default_factory=Counter)
    token: str = ""
    until_ms: int = 0
    length_ms: int = 0
    wakeup: str = ""
    intents: dict[str, bytes] = field(default_factory=dict)
    open: dict[str, int] = field(default_factory=dict)
    rendering: tuple[str, ...] = ()
    retry: dict[str, Wait] = field(default_factory=dict)
    aside: dict[str, Backoff] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    ledgers: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    dead_letters: dict[str, bytes] = field(default_factory=dict)
    causes: dict[str, bytes] = field(default_factory=dict)
    cause_counts: Counter[str] = field(default_factory=Counter)
    history: list[bytes] = field(default_factory=list)
    responses: list[bytes] = field(default_factory=list)
    reached: dict[str, bytes] = field(default_factory=dict)
    orphans: dict[str, str] = field(default_factory=dict)
    orphan_counts: Counter[str] = field(default_factory=Counter)
    forwards: dict[bytes, bytes] = field(default_factory=dict)
    elsewhere: dict[int, list[NewDelivery]] = field(default_factory=dict)
    last_id: str = "0-0"

    def ledger(self, digest: bytes) -> bytes | None:
        """Return the packed record of a profile, if it is known and has not been removed."""
        return self.ledgers.get(digest, (None, 0))[0]

    def remove_lapsed(self) -> int:
        """Remove the ledgers whose time is past, and return how many there were.

        They stay while anything waits that was accepted before.
        """
        waiting = [each for stream in self.streams.values() for each in stream.values()]
        accepted = [min(e.header.accepted_ms, order_of(e.entry_id)[0]) for e in waiting]
        oldest_ms = min([self.now_ms(), *accepted])
        lapsed = [i for i, (_, until_ms) in self.ledgers.items() if until_ms < oldest_ms]
        for digest in lapsed:
            del self.ledgers[digest]
        return len(lapsed)

    def holds_entry(self, position: str) -> bool:
        """Say whether a delivery waits: `lane|trigger|id`."""
        stream, _, entry_id = position.rpartition("|")
        return entry_id in self.streams.get(stream, {})

    def waiting(self) -> int:
        """Return how many deliveries wait."""
        return sum(map(len, self.streams.values()))

    def next_id(self) -> str:
        """Return an entry id beyond all others."""
        milliseconds, sequence = order_of(self.last_id)
        now_ms = self.now_ms()
        self.last_id = f"{now_ms}-0" if now_ms > milliseconds else f"{milliseconds}-{sequence + 1}"
        return self.last_id

    def count_down(self, name: str, entry_id: str) -> None:
        """Count an entry down that was set aside and is gone."""
        for known, last_id in list(self.orphans.items()):
            if known.startswith(f"{name}|") and order_of(entry_id) <= order_of(last_id):
                self.orphan_counts[known] -= 1
                if self.orphan_counts[known] <= 0:
                    del self.orphans[known], self.orphan_counts[known]

    def due(
        self, paused: frozenset[str], scopes: Iterable[str] = ()
    ) -> Literal["live", "backfill", ""]:
        """Return of which lane some stream has work that may be done now, live first."""
        meant = dict(label.split("|") for label in scopes)
        lanes = {
            split_stream_name(name)[0]
            for name in self.streams
            if self._is_stream_due(name, paused, meant)
        }
        return LIVE if LIVE in lanes else BACKFILL if lanes else ""

    def _is_stream_due(self, name: str, paused: frozenset[str], meant: Mapping[str, str]) -> bool:
        lane, trigger = split_stream_name(name)
        wait = self.retry.get(trigger)
        if lane in paused or trigger in paused or (wait and wait.not_before_ms > self.now_ms()):
            return False
        behind = [order_of(self.orphans.get(f"{name}|{meant.get(trigger, '')}", "0-0"))]
        hold = self.holds.get(name)
        if hold and hold.until_ms > self.now_ms():
            behind.append(order_of(hold.last_id))
        return order_of(next(reversed(self.streams[name]))) > max(behind)

"""Moving orphaned deliveries to another trigger."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from redis import Redis

from segrelay.ops.moving.carrying import Carrier, carry_entries
from segrelay.ops.moving.leases import HeldLease, held
from segrelay.ops.state import opened
from segrelay.ops.state.partitions import Stream
from segrelay.ops.state.waiting import (
    BESIDE,
    STEP,
    WaitingEntry,
    is_orphan,
    is_unwanted,
    read_entries,
    refuse_other_configurations,
)
from segrelay.producer.wakeups import Waker
from segrelay.worker.contract.keys import PartitionKeys, stream_name
from segrelay.worker.contract.redis.connection import redis_errors
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.triggers import Scope
from segrelay.worker.contract.words import LIVE, kind_of_lane
from segrelay.worker.errors import OperationsMustAct


class Moved(NamedTuple):
    """The numbers of entries that one step has moved, and left where they were.

    Attributes:
        left: Entries that the other trigger does not want, which stay where they are.
    """

    moved: int
    left: int


@dataclass(frozen=True, slots=True)
class Mover:
    """Moves deliveries that no worker delivers to a trigger that wants them."""

    client: Redis
    settings: Settings
    trigger: Trigger
    scopes: Mapping[str, Scope]
    waker: Waker

    def move(self, streams: Sequence[Stream]) -> Iterator[Moved]:
        """Move the orphaned deliveries of these streams, step by step.

        Raises:
            OperationsMustAct: A worker with another configuration may be sending it.
            RedisUnavailable: The steps before were made.
        """
        for stream in streams:
            part: list[WaitingEntry] = []
            left = 0
            for entry in self.orphans(stream):
                if entry.header is None or self.scopes[self.trigger.name].wants(entry.header):
                    part.append(entry)
                else:
                    left += 1
                if len(part) == STEP:
                    yield Moved(self._step(stream, part), left)
                    part, left = [], 0
            yield Moved(self._step(stream, part), left)

    def orphans(self, stream: Stream) -> Iterator[WaitingEntry]:
        """Yield the entries of a stream that no worker delivers."""
        scope = None
        if not is_orphan(self.settings, stream.place, stream.trigger):
            scope = self.scopes[stream.trigger]
        for entry in read_entries(self.client, stream):
            if is_unwanted(entry, scope):
                yield entry

    def _step(self, stream: Stream, entries: Sequence[WaitingEntry]) -> int:
        if not entries:
            return 0
        refuse_other_configurations(self.client, self.settings)
        target = stream_name(stream.lane, self.trigger.name)
        if self.trigger.destination == stream.place.destination:
            return self._within(stream, target, [entry.entry_id for entry in entries])
        return self._beyond(stream, target, entries)

    def _within(self, stream: Stream, target: str, ids: Sequence[str]) -> int:
        """Move entries to another stream of the same partition, by one script."""
        k = stream.place
        names = (
            *(k.counts, k.streams, k.holds, k.stream(stream.name), k.aside, k.lease, k.orphans),
            *(k.wakeup, k.stream(target)),
        )
        call = ScriptCall(names, (stream.name, target, self.settings.fingerprint, *ids))
        ((moved, wake),) = opened.run(self.client, "move", [call])
        if moved < 0:
            owner, _, _ = wake.decode().partition(" ")
            raise OperationsMustAct(BESIDE.format(owner))
        if wake:
            self.waker.wake(k.destination, k.partition, queue=kind_of_lane(stream.lane))
        return int(moved)

    def _beyond(self, stream: Stream, target: str, entries: Sequence[WaitingEntry]) -> int:
        """Move entries to another destination, and merge their people's ledger records there."""
        old, new = stream.place, PartitionKeys(self.trigger.destination, stream.place.partition)
        owner = f"{socket.gethostname()}:trigger-move"
        retention_ms = round(1000 * self.settings.delivery.ledger_retention_seconds)
        with (
            held(HeldLease(self.client, old, owner)) as here,
            held(HeldLease(self.client, new, owner)) as there,
        ):
            carrier = Carrier(self.client, here, there, retention_ms)
            carrier.merge_ledgers([one.header.digest for one in entries if one.header])
            moved = carry_entries(carrier, stream.name, target, [one.entry_id for one in entries])
        if moved:
            self._wake(new, stream.lane)
        return moved

    def _wake(self, place: PartitionKeys, lane: str) -> None:
        """Ring for a partition, unless somebody has done that; live work has a queue of its own."""
        is_live = kind_of_lane(lane) == LIVE
        with redis_errors():
            is_new = self.client.set(place.wakeup, "1" if is_live else "3", nx=True)
            if not is_new and is_live and self.client.get(place.wakeup) == b"3":
                is_new = self.client.set(place.wakeup, "1")
        if is_new:
            self.waker.wake(place.destination, place.partition, queue=kind_of_lane(lane))

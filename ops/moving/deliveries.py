"""Moving orphaned deliveries to another trigger."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from redis import Redis

from ops.moving.carrying import Carrier
from ops.moving.held import HeldLease, held
from ops.moving.rows import carry_entries
from ops.state import scripts
from ops.state.partitions import Stream
from ops.state.waiting import (
    BESIDE,
    STEP,
    WaitingEntry,
    is_orphan,
    is_unwanted,
    read_entries,
    refuse_other_configurations,
)
from producer.doorbell import Doorbell
from worker.contract.keys import PartitionKeys, stream_name
from worker.contract.redis.connection import redis_errors
from worker.contract.redis.scripts import ScriptCall
from worker.contract.settings import Settings, Trigger
from worker.contract.triggers.meaning import Meaning
from worker.contract.words import LIVE, kind_of_lane
from worker.errors import OperationsMustAct


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
    meanings: Mapping[str, Meaning]
    doorbell: Doorbell

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
                if entry.header is None or self.meanings[self.trigger.name].wants(entry.header):
                    part.append(entry)
                else:
                    left += 1
                if len(part) == STEP:
                    yield Moved(self._step(stream, part), left)
                    part, left = [], 0
            yield Moved(self._step(stream, part), left)

    def orphans(self, stream: Stream) -> Iterator[WaitingEntry]:
        """Yield the entries of a stream that no worker delivers."""
        meaning = None
        if not is_orphan(self.settings, stream.place, stream.trigger):
            meaning = self.meanings[stream.trigger]
        for entry in read_entries(self.client, stream):
            if is_unwanted(entry, meaning):
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
            *(k.bell, k.stream(target)),
        )
        call = ScriptCall(names, (stream.name, target, self.settings.fingerprint, *ids))
        ((moved, ring),) = scripts.run(self.client, "move", [call])
        if moved < 0:
            owner, _, _ = ring.decode().partition(" ")
            raise OperationsMustAct(BESIDE.format(owner))
        if ring:
            self.doorbell.ring(k.destination, k.partition, queue=kind_of_lane(stream.lane))
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
            carrier = Carrier(self.client, here, (there,), retention_ms)
            carrier.merge_ledgers([one.header.digest for one in entries if one.header])
            moved = carry_entries(carrier, stream.name, target, [one.entry_id for one in entries])
        if moved:
            self._ring(new, stream.lane)
        return moved

    def _ring(self, place: PartitionKeys, lane: str) -> None:
        """Ring for a partition, unless somebody has done that; live work has a queue of its own."""
        is_live = kind_of_lane(lane) == LIVE
        with redis_errors():
            is_new = self.client.set(place.bell, "1" if is_live else "3", nx=True)
            if not is_new and is_live and self.client.get(place.bell) == b"3":
                is_new = self.client.set(place.bell, "1")
        if is_new:
            self.doorbell.ring(place.destination, place.partition, queue=kind_of_lane(lane))

"""`segrelay discard` and `segrelay rename trigger`: taking back and moving what waits."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

import typer

from segrelay.ops.kept import (
    ChoosingOptions,
    ExtentOptions,
    Filter,
    Work,
    carry_out,
    discard_chosen,
)
from segrelay.ops.moving.carrying import Carrier
from segrelay.ops.moving.leases import HeldLease, held
from segrelay.ops.state import opened as scripts
from segrelay.ops.state.acts import Asks
from segrelay.ops.state.partitions import Stream, all_partitions
from segrelay.ops.state.waiting import (
    BESIDE,
    STEP,
    Choice,
    WaitingEntry,
    count_chosen,
    find_streams,
    is_orphan,
    is_unwanted,
    measure,
    read_entries,
    refuse_other_configurations,
    take_back,
)
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.options import DestinationName, configured
from segrelay.producer.wakeups import CeleryWaker, SilentWaker, Waker
from segrelay.worker.adapters.redis.shared_keys import read_scopes
from segrelay.worker.contract.keys import PartitionKeys, stream_name
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import ScriptCall
from segrelay.worker.contract.settings import Settings, Trigger
from segrelay.worker.contract.triggers import Scope
from segrelay.worker.contract.words import LIVE, kind_of_lane
from segrelay.worker.errors import OperationsMustAct, UsageWrong

_UNWANTED: Final = "unwanted"


@dataclass(frozen=True, slots=True)
class Waiting:
    """The deliveries that wait, as a store of kept things.

    Args:
        target: The trigger to which a replay moves the deliveries that no worker delivers.
        waker: The waker of the partitions into which a replay moves something.
    """

    client: Redis
    settings: Settings
    target: Trigger | None = None
    waker: Waker = field(default_factory=SilentWaker)
    command: ClassVar[str] = "discard"
    nouns: ClassVar[tuple[str, str]] = ("waiting delivery", "waiting deliveries")

    def discard(self, wanted: Filter) -> Work:
        """Return the work of taking back the deliveries that match."""
        choice, streams = _choice(wanted), measure(self.client, self.streams(wanted))
        count = count_chosen(self.client, streams, choice)
        return Work(count, lambda: take_back(self.client, self.settings, streams, choice))

    def replay(self, wanted: Filter) -> Work:
        """Return the work of moving those that no worker delivers, as far as the target wants them.

        Their age was looked at when they were accepted. The steps raise `OperationsMustAct` where
        a worker with another configuration may be sending them.
        """
        streams = self.streams(wanted)
        scopes = read_scopes(self.client, self.settings)
        left_out: Counter[str] = Counter()

        def steps() -> Iterator[int]:
            left_out.clear()
            for stream in streams:
                yield from self._move(stream, scopes, left_out)

        count = sum(1 for stream in streams for _ in self._orphans(stream, scopes))
        return Work(count, steps, left_out)

    def streams(self, wanted: Filter) -> list[Stream]:
        """Return the streams that hold deliveries which may match."""
        partitions = all_partitions(self.client, self.settings)
        return find_streams(self.client, partitions, _choice(wanted))

    def _orphans(self, stream: Stream, scopes: Mapping[str, Scope]) -> Iterator[WaitingEntry]:
        """Yield the entries of a stream that no worker delivers."""
        scope = None
        if not is_orphan(self.settings, stream.partition, stream.trigger):
            scope = scopes[stream.trigger]
        for entry in read_entries(self.client, stream):
            if is_unwanted(entry, scope):
                yield entry

    def _move(
        self, stream: Stream, scopes: Mapping[str, Scope], left_out: Counter[str]
    ) -> Iterator[int]:
        """Move the orphaned deliveries of a stream, step by step."""
        assert self.target is not None
        part: list[WaitingEntry] = []
        for entry in self._orphans(stream, scopes):
            if entry.header is None or scopes[self.target.name].wants(entry.header):
                part.append(entry)
            else:
                left_out[_UNWANTED] += 1
            if len(part) == STEP:
                yield self._step(stream, self.target, part)
                part = []
        if part:
            yield self._step(stream, self.target, part)

    def _step(self, stream: Stream, target: Trigger, entries: Sequence[WaitingEntry]) -> int:
        refuse_other_configurations(self.client, self.settings)
        name = stream_name(stream.lane, target.name)
        if target.destination == stream.partition.destination:
            return self._within(stream, name, [entry.entry_id for entry in entries])
        return self._beyond(
            stream,
            PartitionKeys(target.destination, stream.partition.number),
            name,
            entries,
        )

    def _within(self, stream: Stream, target: str, ids: Sequence[str]) -> int:
        """Move entries to another stream of the same partition, by one script."""
        k = stream.partition
        names = (
            *(k.counts, k.streams, k.holds, k.stream(stream.name), k.aside, k.lease, k.orphans),
            *(k.wakeup, k.stream(target)),
        )
        call = ScriptCall(names, (stream.name, target, self.settings.fingerprint, *ids))
        ((moved, wake),) = scripts.run(self.client, "move", [call])
        if moved < 0:
            owner, _, _ = wake.decode().partition(" ")
            raise OperationsMustAct(BESIDE.format(owner))
        if wake:
            self.waker.wake(k.destination, k.number, queue=kind_of_lane(stream.lane))
        return int(moved)

    def _beyond(
        self, stream: Stream, new: PartitionKeys, target: str, entries: Sequence[WaitingEntry]
    ) -> int:
        """Move entries to another destination, and merge their people's ledger records there."""
        owner = f"{socket.gethostname()}:trigger-move"
        retention_ms = round(1000 * self.settings.delivery.ledger_retention_seconds)
        with (
            held(HeldLease(self.client, stream.partition, owner)) as here,
            held(HeldLease(self.client, new, owner)) as there,
        ):
            carrier = Carrier(self.client, here, there)
            digests = [one.header.digest for one in entries if one.header]
            carrier.merge_ledgers(digests, retention_ms)
            moved = carrier.carry_entries(stream.name, target, [one.entry_id for one in entries])
        if moved:
            self._wake(new, stream.lane)
        return moved

    def _wake(self, partition: PartitionKeys, lane: str) -> None:
        """Wake a partition, unless somebody has done that; live work has a queue of its own."""
        is_live = kind_of_lane(lane) == LIVE
        is_new = self.client.set(partition.wakeup, "1" if is_live else "3", nx=True)
        if not is_new and is_live and self.client.get(partition.wakeup) == b"3":
            is_new = self.client.set(partition.wakeup, "1")
        if is_new:
            self.waker.wake(partition.destination, partition.number, queue=kind_of_lane(lane))


def _choice(wanted: Filter) -> Choice:
    return Choice(wanted.job, wanted.trigger, wanted.audience, wanted.destination)


def move(
    old: Annotated[str, typer.Argument(help="The trigger for which they wait.")],
    new: Annotated[str, typer.Argument(help="A trigger that the configuration has.")],
    *,
    relay: Asks,
) -> Result:
    """Move orphaned deliveries to another trigger that wants them.

    Orphaned is what waits for a trigger that the configuration no longer has, and what waits for
    one that has another direction or other audiences now. What the old trigger still wants stays,
    and so does what the new one does not want. The count of accepted deliveries moves along. Dead
    letters stay what they are. While a worker runs that was started with another configuration,
    nothing is moved: it may be sending just that.
    """
    client, settings = relay.client, relay.settings
    target = configured("trigger", new, settings.triggers)
    claim(client, settings)
    store = Waiting(client, settings, target, CeleryWaker(settings))
    wanted = Filter(trigger=old)
    work = store.replay(wanted)
    _refuse_wanted(settings, old, work.count)
    if work.count:
        refuse_other_configurations(client, settings)
    question = f"Move {work.count:,} orphaned deliveries from {old} to {new}?"
    moved = carry_out(relay, work, "moved", old, question, to=new)
    left = work.left_out.total()
    stay = f"{left:,} of them stay: {new} is for another direction, or for other audiences."
    document = {"moved": moved, "left": left}
    return Result(
        document, f"{plural(moved, 'delivery', 'deliveries')} moved", notes=[stay] if left else ()
    )


def _refuse_wanted(settings: Settings, old: str, orphans: int) -> None:
    if old in settings.triggers and not orphans:
        raise UsageWrong(
            f"{old} is configured, so workers deliver what waits for it; only what no trigger of"
            " that name wants can be moved."
        )


@dataclass(frozen=True, slots=True)
class WaitingOptions(ChoosingOptions):
    """Options that narrow each other."""

    job: Annotated[str, typer.Option(help="Only what this job has published.")] = ""
    destination: DestinationName = ""
    trigger: Annotated[str, typer.Option(help="Only what waits for this trigger.")] = ""
    audience: Annotated[str, typer.Option(help="Only what is about this audience.")] = ""

    def refuse_accidental_all(self, ids: Iterable[str] | None, *, everything: bool) -> None:
        """Refuse a command that names nothing and does not say --all; entries have no ids."""
        if not (everything or ids) and self == WaitingOptions():
            raise UsageWrong("Name --job, --destination, --trigger or --audience, or say --all.")

    def chosen(
        self, client: Redis, settings: Settings, ids: Iterable[str] | None, *, force: bool = False
    ) -> Filter:
        """Return the filter that these options stand for."""
        del client, settings, ids, force
        return Filter(
            job=self.job,
            destination=self.destination,
            trigger=self.trigger,
            audience=self.audience,
        )


def discard(*, options: WaitingOptions, extent: ExtentOptions, relay: Asks) -> Result:
    """Take back deliveries that are waiting; they are counted as discarded.

    Several options narrow each other. A worker may still send what it has read already. `segrelay
    dlq discard` is for dead letters, `segrelay quarantine discard` for what could not be placed.
    """
    return discard_chosen(relay, Waiting(relay.client, relay.settings), options, extent)

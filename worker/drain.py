"""Draining, the use case: one drain works on one partition of a destination for a while.

Read from top to bottom: look, take, read, ask the ledger, render, shape, pack, book, write the
intent, send, classify, settle, go on, release.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from segrelay.worker.batch.batch import Batch, Settler
from segrelay.worker.batch.conclude import Conclusion
from segrelay.worker.batch.delivery import LoadedTrigger
from segrelay.worker.batch.halve import Refusals
from segrelay.worker.batch.pack import Packer
from segrelay.worker.batch.partition import Clock, Intent, ReadWants, State, TakenPartition, Tally
from segrelay.worker.batch.read import (
    BATCH_ENTRIES,
    BATCH_ENTRIES_ONE_BY_ONE,
    ask_ledger,
    contend,
    decode_batch,
    is_any_due,
    ledgers_after,
    read_batch,
    unpack_ledgers,
)
from segrelay.worker.batch.render import RowRenderer, render_and_shape
from segrelay.worker.batch.responses import NO_RESPONSES, Responses
from segrelay.worker.batch.send import BatchSender, InterruptWatch, Lease, Stop
from segrelay.worker.contract.keys import PartitionKeys, split_stream_name
from segrelay.worker.contract.triggers import Scope
from segrelay.worker.contract.words import BACKFILL, LIVE, kind_of_lane
from segrelay.worker.core.gate import Closed, LaneKind, Open
from segrelay.worker.destinations.api import Sender
from segrelay.worker.errors import LeaseLost, SegrelayError

if TYPE_CHECKING:
    from segrelay.worker.adapters.redis.gate import RedisGate
    from segrelay.worker.adapters.redis.partition import RedisPartition
    from segrelay.worker.adapters.redis.shared_keys import RedisNumbers, RedisStreaks

SLICE_SECONDS: Final = 2.0
"""The seconds that a drain works before others get their turn."""
LIVE_LOOK_SECONDS: Final = 0.05
"""The seconds of a backfill's work between two looks for live work."""
STOP_GRACE_SECONDS: Final = 2.5
"""The seconds that a request may go on after the signal to stop; then it is cut, and in doubt."""
RELEASE_TRIES: Final = 3
"""The tries of a drain to give its lease back; between two of them, it does the work that came."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Durations of a drain, in seconds, and how much it takes at once.

    Args:
        in_flight: The largest number of requests under way.
        batch_entries: The largest number of deliveries in a batch.
    """

    slice_seconds: float
    request_deadline_seconds: float
    late_seconds: float
    in_flight: int
    batch_entries: int = BATCH_ENTRIES
    stop_grace_seconds: float = STOP_GRACE_SECONDS


class Done(Enum):
    """The extent to which a drain has done its work."""

    NOTHING = "there was nothing"
    SOME = "there may be more"
    ALL = "all that there was"


@dataclass(frozen=True, slots=True)
class Drain:
    """One drain of one partition, with all that it works with.

    Args:
        keys: Of the partition.
        triggers: By their names; streams of others are left alone.
        paused: Names of paused triggers and lanes of paused jobs; None = the destination is paused.
        looks: Whether the gate is open for each trigger, as it was asked together with the pauses.
        read_names: Reads all numbers anew, under the lease.
        read_wants: Reads the scopes and the newest editions of the triggers anew; asked only where
            work waits, or a trigger seems not to want what was read.
        live_waits: A function that says whether live work waits elsewhere.
        kinds: The kinds of lanes of which it may read: without a permit of the backfill lane, it
            may not read those.
        responses: The triggers that have a stream for their outcomes.
        scopes: The scopes of triggers; what one does not want becomes a dead letter.
    """

    keys: PartitionKeys
    partition: RedisPartition
    gate: RedisGate
    sender: Sender
    renderer: RowRenderer
    numbers: RedisNumbers
    streaks: RedisStreaks
    lease: Lease
    triggers: Mapping[str, LoadedTrigger]
    paused: frozenset[str] | None
    looks: Mapping[str, Open | Closed]
    read_names: Callable[[], Awaitable[None]]
    read_wants: ReadWants
    live_waits: Callable[[], Awaitable[bool]]
    clock: Clock
    jitter: random.Random
    limits: Limits
    stop: Stop
    kinds: tuple[LaneKind, ...] = (LIVE, BACKFILL)
    responses: Responses = NO_RESPONSES
    scopes: Mapping[str, Scope] = field(default_factory=dict)

    async def run(self) -> tuple[Tally, str]:
        """Drain the partition for one slice of time.

        Returns:
            What was done, and the queue to wake this partition on; "" = do not wake it.

        Raises:
            RedisUnavailable: Nothing more is sent; intents tell the next holder what was.
        """
        # 1. Look: what is paused, or stands before a closed gate, is not read.
        paused = self.paused
        going = () if paused is None else self.triggers.keys() - paused
        looks = {name: self.looks[name] for name in going}
        closed = [look.reason for look in looks.values() if isinstance(look, Closed)]
        if paused is None or len(closed) == len(looks):
            return Tally(ended=closed[0] if closed else "paused by a person"), ""
        # 2. Take the lease; read the intents, and the numbers of audiences and triggers.
        try:
            holding = await self.partition.take()
            if holding is None:
                return Tally(ended="held by another worker"), ""
            stopped = {name for name, trigger in self.triggers.items() if trigger.stopped}
            held = {*paused, *stopped}
            is_delayed = holding.waits or holding.backoffs or holding.holds
            state = State.of(
                holding,
                self.clock,
                self.limits.late_seconds,
                held,
                self.scopes,
                editions={name: one.edition for name, one in self.triggers.items()},
                newest=(await self.read_wants())[1] if is_delayed else {},
                read_wants=self.read_wants,
                jitter=self.jitter,
            )
            state.obey(looks)
            return await self._hold(holding, state)
        except Exception:
            # Whatever the error is, nobody else should have to wait until this lease lapses.
            with contextlib.suppress(SegrelayError):
                await self.partition.release({}, ())
            raise

    async def _hold(self, holding: TakenPartition, state: State) -> tuple[Tally, str]:
        """Drain the partition under the lease, and give the lease back."""
        try:
            with self.lease:
                # Redis decides: after a failover it may have lost what this process has learned.
                await self.read_names()
                await self._take_over(holding, state)
                done = await self._work(state)
                # 14. Release the lease.
                return state.tally, await self._release(state, done)
        except LeaseLost:
            state.end("the lease was taken over", failed=True)
            return state.tally, ""

    async def _take_over(self, holding: TakenPartition, state: State) -> None:
        """Open the intents of a holder that vanished: nobody knows what came of their requests."""
        vanished = [intent for intent in holding.intents if not intent.open_until_ms]
        if not vanished:
            return
        rows = [delivery for intent in vanished for delivery in intent.deliveries]
        await self.numbers.learn({row.audience for row in rows}, {row.trigger for row in rows})
        digests = list(dict.fromkeys(row.digest for row in rows))
        texts = await self.partition.ledgers(digests)
        end_ms = await self.partition.intents_in_doubt(
            [intent.intent_id for intent in vanished],
            self.limits.late_seconds,
            ledgers_after(vanished, dict(zip(digests, texts, strict=True)), self.numbers),
        )
        for intent in vanished:
            state.keep_open(Intent(intent.intent_id, intent.deliveries, end_ms))

    async def _work(self, state: State) -> Done:
        """Work off batch after batch."""
        end = self.clock.seconds() + self.limits.slice_seconds
        done = Done.NOTHING
        kinds = self.kinds
        while not self.stop.is_told and self.lease.is_valid():
            # 3. Read a batch, of one lane, live first.
            names = await self._streams(state)
            batch = await self._next(state, names, kinds)
            if batch is None:
                state.streams = names
                return done
            done = Done.SOME
            progress = await self._work_off(batch, end)
            # 13. Go on until empty, until the slice is over, or live work waits elsewhere.
            goes_on = progress and not state.yields and self.clock.seconds() < end
            has_all = self.kinds == (batch.kind,) and batch.is_last
            if goes_on and has_all and batch.settled == len(batch.deliveries):
                # If there is another by now, the release tells that it is due.
                state.streams = names
                return Done.ALL
            if batch.kind == BACKFILL and (not goes_on or await self.live_waits()):
                # What is live here does not wait until somebody else takes the lease.
                goes_on, kinds = not state.yields, (LIVE,)
            if not goes_on:
                return done
        return done

    @property
    def _most(self) -> int:
        """The largest number of deliveries in a batch."""
        one_by_one = any(trigger.api.max_users == 1 for trigger in self.triggers.values())
        return BATCH_ENTRIES_ONE_BY_ONE if one_by_one else self.limits.batch_entries

    async def _next(
        self, state: State, names: Sequence[str], kinds: Sequence[LaneKind]
    ) -> Batch | None:
        """Return the next batch, of the first kind of lanes that has one; None = none has."""
        for kind in kinds:
            streams = self._readable(names, kind, state)
            deliveries = await read_batch(self.partition, state, streams, entries=self._most)
            if deliveries:
                batch = Batch(state, self.numbers, self.triggers, kind)
                await decode_batch(batch, deliveries, entries=self._most)
                return batch
        return None

    async def _streams(self, state: State) -> tuple[str, ...]:
        """Return the names of the streams, from memory if they were read a moment ago."""
        names, state.streams = state.streams, None
        state.live_asked_seconds, state.live_is_due = -math.inf, False
        return await self.partition.streams() if names is None else names

    def _readable(self, names: Iterable[str], kind: LaneKind, state: State) -> list[str]:
        """Return the streams of one kind of lane that may be read now."""
        parts = ((name, *split_stream_name(name)) for name in names)
        return [
            name
            for name, lane, trigger in parts
            if kind_of_lane(lane) == kind and trigger in self.triggers and state.may_read(name)
        ]

    async def _work_off(self, batch: Batch, end: float) -> bool:
        """Work off one batch; returns whether anything changed."""
        state = batch.state
        settler = Settler(batch, self.partition, self.streaks, self.keys, self.responses)
        refusals = Refusals(batch, settler, self.gate)
        sender = self._sender(batch, settler, refusals)
        # 4. Ask the ledger. Of the rest, only what no other of the batch supersedes goes on.
        digests = list(dict.fromkeys(delivery.digest for delivery in batch.decoded))
        rendering = [delivery.position for delivery in batch.decoded]
        texts = await self.partition.ledgers(digests, rendering)
        by_digest = dict(zip(digests, texts, strict=True))
        known = unpack_ledgers(batch.decoded, by_digest, batch)
        await settler.stop()
        going = contend(ask_ledger(known, batch))
        # 5. Render, 6. shape.
        await render_and_shape(going, batch, self.renderer, partial(self._yields, batch))
        settled = await settler.settle_unsent()
        # 7. to 12. Pack, and carry every request from its send time to its settlement.
        requests, shut = state.tally.requests, len(state.shut)
        async with sender.watch:
            await self._deliver(sender, end)
        await refusals.finish()
        if sender.closed:
            state.end(sender.closed.reason, failed=sender.closed.state in {"paused", "broken"})
        did = settled or batch.stopped or state.tally.requests > requests
        return bool(did) or len(state.shut) > shut

    async def _deliver(self, sender: BatchSender, end: float) -> None:
        """Keep up to `in_flight` requests of different profiles under way.

        What was rendered is sent for a slice at least, however long the rendering took. Once live
        work waits, no further request of a backfill is begun.
        """
        over_at = max(end, self.clock.seconds()) + self.limits.slice_seconds
        running: set[asyncio.Task[None]] = set()
        batch, packer = sender.batch, sender.packer
        has_begun = False
        try:
            while True:
                # The first requests are sent in any case, so that a backfill comes on.
                yields = has_begun and bool(batch.parts) and await self._yields(batch)
                while len(running) < self.limits.in_flight and not yields:
                    is_over = sender.watch.is_over or batch.state.yields
                    is_over = is_over or self.clock.seconds() >= over_at
                    request = None if is_over else packer.next_request()
                    if request is None:
                        break
                    running.add(asyncio.ensure_future(sender.send(request)))
                has_begun = True
                # Packing may have found deliveries that need no request.
                await sender.settler.settle_unsent()
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.gather(*done)
        finally:
            # The other requests end before the error of one is raised.
            await asyncio.gather(*running, return_exceptions=True)

    async def _yields(self, batch: Batch) -> bool:
        """Say whether a batch stops here: the process has to stop, or live work waits.

        Live work would have to wait until all of a backfill's batch is rendered and sent, so Redis
        is asked for it from time to time.
        """
        state, now = batch.state, self.clock.seconds()
        if self.stop.is_told or batch.kind == LIVE or state.live_is_due:
            return self.stop.is_told or batch.kind == BACKFILL
        if now < state.live_asked_seconds + LIVE_LOOK_SECONDS:
            return False
        state.live_asked_seconds = now
        live = self._readable(await self.partition.streams(), LIVE, state)
        state.live_is_due = await is_any_due(self.partition, state, live) or await self.live_waits()
        return state.live_is_due

    def _sender(self, batch: Batch, settler: Settler, refusals: Refusals) -> BatchSender:
        conclusion = Conclusion(
            batch=batch,
            partition=self.partition,
            settler=settler,
            refusals=refusals,
            late_seconds=self.limits.late_seconds,
        )
        return BatchSender(
            batch=batch,
            packer=Packer(batch),
            renderer=self.renderer,
            partition=self.partition,
            gate=self.gate,
            sender=self.sender,
            settler=settler,
            conclusion=conclusion,
            watch=InterruptWatch(self.lease, self.stop, self.clock, self.limits.stop_grace_seconds),
            deadline_seconds=self.limits.request_deadline_seconds,
        )

    async def _release(self, state: State, done: Done) -> str:
        """Give the lease back; a drain that has done all keeps it if work came meanwhile.

        Returns the queue to wake the partition on; "" = nobody needs to come.
        """
        reads_all = BACKFILL in self.kinds
        for tries_left in reversed(range(RELEASE_TRIES)):
            keeps = done is not Done.SOME and not self.stop.is_told and tries_left > 0
            triggers = {split_stream_name(name)[1] for name in await self._streams(state)}
            release = await self.partition.release(
                state.changed_holds,
                {*state.paused, *state.shut, *(triggers - set(self.triggers))},
                suspects=state.suspects,
                labels=state.labels_of(triggers & self.triggers.keys()),
                keep_for=self.kinds if keeps else (),
            )
            if release.released or not release.due:
                wanted = done is not Done.NOTHING
                if release.wake == BACKFILL:
                    # What this drain may not read is for one with a permit of the backfill lane.
                    wanted = (wanted or not reads_all) and not state.yields
                return release.wake if wanted else ""
            done = await self._work(state)
        return ""

"""Draining, the use case: one drain works on one partition of a destination for a while.

Read from top to bottom: look, take, read, ask the ledger, render, shape, pack, book, write the
intent, send, classify, settle, go on, release.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.conclude import finish
from segrelay.worker.batch.pack import next_request
from segrelay.worker.batch.partition import Drain, Intent, State, TakenPartition, Tally
from segrelay.worker.batch.read import (
    BATCH_ENTRIES_ONE_BY_ONE,
    ask_ledger,
    contend,
    decode_batch,
    is_any_due,
    is_full,
    ledgers_after,
    read_batch,
    unpack_ledgers,
)
from segrelay.worker.batch.render import render_and_shape
from segrelay.worker.batch.send import send
from segrelay.worker.contract.keys import split_stream_name
from segrelay.worker.contract.words import BACKFILL, LIVE, kind_of_lane
from segrelay.worker.core.gate import Closed, LaneKind
from segrelay.worker.errors import LeaseLost, SegrelayError

LIVE_LOOK_SECONDS: Final = 0.05
"""The seconds of a backfill's work between two looks for live work."""
RELEASE_TRIES: Final = 3
"""The tries of a drain to give its lease back; between two of them, it does the work that came."""


class Done(Enum):
    """The extent to which a drain has done its work."""

    NOTHING = "there was nothing"
    SOME = "there may be more"
    ALL = "all that there was"


async def run(drain: Drain) -> tuple[Tally, str]:
    """Drain a partition for one slice of time.

    Returns:
        What was done, and the queue to wake this partition on; "" = do not wake it.

    Raises:
        RedisUnavailable: Nothing more is sent; intents tell the next holder what was.
    """
    # 1. Look: what is paused, or stands before a closed gate, is not read.
    going = () if drain.paused is None else drain.triggers.keys() - drain.paused
    looks = {name: drain.looks[name] for name in going}
    closed = [look.reason for look in looks.values() if isinstance(look, Closed)]
    if len(closed) == len(looks):
        return Tally(ended=closed[0] if closed else "paused by a person"), ""
    # 2. Take the lease; read the intents, and the numbers of audiences and triggers.
    try:
        holding = await drain.partition.take()
        if holding is None:
            return Tally(ended="held by another worker"), ""
        is_delayed = holding.waits or holding.backoffs or holding.holds
        state = State.of(holding, drain, (await drain.read_wants())[1] if is_delayed else {})
        state.obey(looks)
        with drain.lease:
            # Redis decides: after a failover it may have lost what this process has learned.
            await drain.read_names()
            await _take_over(holding, state)
            done = await _work(state)
            # 14. Release the lease.
            return state.tally, await _release(state, done)
    except LeaseLost:
        state.end("the lease was taken over", failed=True)
        return state.tally, ""
    except Exception:
        # Whatever the error is, nobody else should have to wait until this lease lapses.
        with contextlib.suppress(SegrelayError):
            await drain.partition.release({}, ())
        raise


async def _take_over(holding: TakenPartition, state: State) -> None:
    """Open the intents of a holder that vanished: nobody knows what came of their requests."""
    drain = state.drain
    vanished = [intent for intent in holding.intents if not intent.open_until_ms]
    if not vanished:
        return
    headers = [header for intent in vanished for _, header in intent.deliveries]
    triggers = {trigger for intent in vanished for trigger in intent.triggers}
    await drain.numbers.learn({header.audience for header in headers}, triggers)
    digests = list(dict.fromkeys(header.digest for header in headers))
    texts = await drain.partition.ledgers(digests)
    end_ms = await drain.partition.intents_in_doubt(
        [intent.intent_id for intent in vanished],
        drain.late_seconds,
        ledgers_after(vanished, dict(zip(digests, texts, strict=True)), drain.numbers),
    )
    for intent in vanished:
        state.keep_open(Intent(intent.intent_id, intent.deliveries, end_ms))


async def _work(state: State) -> Done:
    """Work off batch after batch."""
    drain = state.drain
    end = drain.clock.seconds() + drain.slice_seconds
    done, kinds = Done.NOTHING, drain.kinds
    while not drain.is_over:
        # 3. Read a batch, of one lane, live first.
        names = await _streams(state)
        batch = await _next(state, names, kinds)
        if batch is None:
            state.streams = names
            return done
        done, before = Done.SOME, (state.tally.requests, len(state.shut))
        await _prepare(batch)
        # 7. to 12. Pack, and carry every request from its send time to its settlement.
        await _deliver(batch, end)
        await finish(batch)
        if batch.closed:
            state.end(batch.closed.reason, failed=batch.closed.state in {"paused", "broken"})
        changed = (state.tally.requests, len(state.shut)) != before
        progress = bool(batch.settled or batch.stopped or changed)
        # 13. Go on until empty, until the slice is over, or live work waits elsewhere.
        goes_on = progress and not state.yields and drain.clock.seconds() < end
        has_all = drain.kinds == (batch.kind,) and batch.is_last
        if goes_on and has_all and batch.settled == len(batch.deliveries):
            # If there is another by now, the release tells that it is due.
            state.streams = names
            return Done.ALL
        if batch.kind == BACKFILL and (not goes_on or await drain.live_waits()):
            # What is live here does not wait until somebody else takes the lease.
            goes_on, kinds = not state.yields, (LIVE,)
        if not goes_on:
            return done
    return done


async def _next(state: State, names: Sequence[str], kinds: Sequence[LaneKind]) -> Batch | None:
    """Return the next batch, of the first kind of lanes that has one; None = none has."""
    drain = state.drain
    goes_one_by_one = any(trigger.api.max_users == 1 for trigger in drain.triggers.values())
    entries = BATCH_ENTRIES_ONE_BY_ONE if goes_one_by_one else drain.batch_entries
    for kind in kinds:
        deliveries = await read_batch(state, _readable(state, names, kind), entries=entries)
        if deliveries:
            return Batch(state, kind, deliveries, is_last=not is_full(deliveries, entries))
    return None


async def _streams(state: State) -> tuple[str, ...]:
    """Return the names of the streams, from memory if they were read a moment ago."""
    names, state.streams = state.streams, None
    state.live_asked_seconds, state.live_is_due = -math.inf, False
    return await state.drain.partition.streams() if names is None else names


def _readable(state: State, names: Iterable[str], kind: LaneKind) -> list[str]:
    """Return the streams of one kind of lane that may be read now."""
    parts = ((name, *split_stream_name(name)) for name in names)
    return [
        name
        for name, lane, trigger in parts
        if kind_of_lane(lane) == kind and lane not in state.paused
        if trigger in state.drain.triggers and state.is_due(trigger)
    ]


async def _prepare(batch: Batch) -> None:
    """Find out what of a batch has to be sent, and shape it; settle the rest."""
    # 4. Ask the ledger. Of the rest, only what no other of the batch supersedes goes on.
    decoded = await decode_batch(batch)
    digests = list(dict.fromkeys(delivery.digest for delivery in decoded))
    rendering = [delivery.position for delivery in decoded]
    texts = await batch.drain.partition.ledgers(digests, rendering)
    known = unpack_ledgers(decoded, dict(zip(digests, texts, strict=True)), batch)
    await batch.stop()
    going = contend(ask_ledger(known, batch))
    # 5. Render, 6. shape.
    await render_and_shape(going, batch, _yields)
    await batch.settle_unsent()


async def _deliver(batch: Batch, end: float) -> None:
    """Keep up to `in_flight` requests of different profiles under way.

    What was rendered is sent for a slice at least, however long the rendering took. Once live
    work waits, no further request of a backfill is begun.
    """
    drain = batch.drain
    over_at = max(end, drain.clock.seconds()) + drain.slice_seconds
    running: set[asyncio.Task[None]] = set()
    has_begun = False
    try:
        while True:
            # The first requests are sent in any case, so that a backfill comes on.
            yields = has_begun and bool(batch.parts) and await _yields(batch)
            while len(running) < drain.in_flight and not yields:
                is_over = drain.is_over or batch.state.yields or drain.clock.seconds() >= over_at
                request = None if is_over else next_request(batch)
                if request is None:
                    break
                running.add(asyncio.ensure_future(send(batch, request)))
            has_begun = True
            # Packing may have found deliveries that need no request.
            await batch.settle_unsent()
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*done)
    finally:
        # The other requests end before the error of one is raised.
        await asyncio.gather(*running, return_exceptions=True)


async def _yields(batch: Batch) -> bool:
    """Say whether a batch stops here: the process has to stop, or live work waits.

    Live work would have to wait until all of a backfill's batch is rendered and sent, so Redis
    is asked for it from time to time.
    """
    state, drain = batch.state, batch.drain
    if drain.stop.is_told or batch.kind == LIVE or state.live_is_due:
        return drain.stop.is_told or batch.kind == BACKFILL
    now = drain.clock.seconds()
    if now < state.live_asked_seconds + LIVE_LOOK_SECONDS:
        return False
    state.live_asked_seconds = now
    live = _readable(state, await drain.partition.streams(), LIVE)
    state.live_is_due = await is_any_due(state, live) or await drain.live_waits()
    return state.live_is_due


async def _release(state: State, done: Done) -> str:
    """Give the lease back; a drain that has done all keeps it if work came meanwhile.

    Returns the queue to wake the partition on; "" = nobody needs to come.
    """
    drain = state.drain
    for tries_left in reversed(range(RELEASE_TRIES)):
        keeps = done is not Done.SOME and not drain.stop.is_told and tries_left > 0
        triggers = {split_stream_name(name)[1] for name in await _streams(state)}
        release = await drain.partition.release(
            state.changed_holds,
            {*state.paused, *state.shut, *(triggers - drain.triggers.keys())},
            suspects=state.suspects,
            labels=state.labels_of(triggers & drain.triggers.keys()),
            keep_for=drain.kinds if keeps else (),
        )
        if release.released or not release.due:
            wanted = done is not Done.NOTHING
            if release.wake == BACKFILL:
                # What this drain may not read is for one with a permit of the backfill lane.
                wanted = (wanted or BACKFILL not in drain.kinds) and not state.yields
            return release.wake if wanted else ""
        done = await _work(state)
    return ""

"""Prepares the next batch while requests are under way: reads it, decodes it, and renders it.

Nothing is decided ahead: when its turn comes, the ledger is asked and its events contend as those
of every batch. If anything of the batch before stays where it is, or waits, then what was read
ahead is forgotten, and read again in its order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from worker.batch.batch import Batch, Contender
from worker.batch.partition import Delivery
from worker.batch.preparing.judge import open_up
from worker.batch.preparing.read import Reads, is_full, order_of, read_on
from worker.batch.preparing.render import Renders, render_ahead
from worker.errors import SegrelayError
from worker.logs import log_bug


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A batch that was read and decoded.

    Args:
        kind: Of its lanes.
        streams: All of this kind that could be read.
        contenders: The deliveries that could be decoded.
        is_all: Nothing is behind it.
    """

    kind: Literal["live", "backfill"]
    streams: Sequence[str]
    batch: Batch
    deliveries: Sequence[Delivery]
    contenders: Sequence[Contender]
    is_all: bool

    @classmethod
    async def of(
        cls,
        kind: Literal["live", "backfill"],
        streams: Sequence[str],
        batch: Batch,
        deliveries: Sequence[Delivery],
        *,
        entries: int,
    ) -> Self:
        """Decode what was read.

        Args:
            kind: Of its lanes.
            streams: All of this kind that could be read.
            batch: It takes in what can't be decoded.
            deliveries: Of these streams.
            entries: How many might be read.
        """
        audiences = {d.header.audience for d in deliveries if d.header.audience}
        await batch.numbers.learn(audiences, {d.trigger for d in deliveries})
        contenders = open_up(deliveries, batch)
        return cls(kind, streams, batch, deliveries, contenders, not is_full(deliveries, entries))


@dataclass(slots=True, eq=False)
class Ahead:
    """The next batch, prepared while the present one is delivered.

    Args:
        decoded: The batch that is delivered.
        entries: How many a batch has at most.
        following: The next one.
    """

    decoded: Decoded
    reads: Reads
    renders: Renders
    entries: int
    following: Decoded | None = None
    _has_begun: bool = False
    _is_over: bool = False
    _preparing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Be ready to begin."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Prepare nothing more."""
        self._is_over = True
        if self._preparing:
            await self._preparing

    def begin(self, ends: Callable[[], Awaitable[bool]]) -> None:
        """Begin to prepare, if nothing is in trouble; called again, it does nothing.

        Args:
            ends: Says whether no more is to be rendered.
        """
        if not self._has_begun:
            self._has_begun = True
            if self._is_worth_it():
                self._preparing = asyncio.ensure_future(self._prepare(ends))

    def _is_worth_it(self) -> bool:
        """Judge by the present batch whether most of the next one will be sent."""
        batch, decoded = self.decoded.batch, self.decoded
        # Before the first answer only what is not sent is settled.
        is_sent = 2 * batch.settled <= len(decoded.deliveries)
        return is_sent and batch.state.is_untroubled(decoded.streams)

    async def _prepare(self, ends: Callable[[], Awaitable[bool]]) -> None:
        async def is_over() -> bool:
            return self._is_over or await ends()

        try:
            await self._read_and_render(is_over)
        except SegrelayError:
            # Whatever it is, the batch's turn meets it, too.
            return
        except Exception as error:  # noqa: BLE001 - without it, the batch has its turn all the same
            log_bug(error, "preparing.failed")

    async def _read_and_render(self, ends: Callable[[], Awaitable[bool]]) -> None:
        decoded, this = self.decoded, self.decoded.batch
        deliveries = await read_on(
            self.reads, this.state, decoded.streams, decoded.deliveries, entries=self.entries
        )
        if not deliveries or await ends():
            return
        renames = this.state.renames
        if any(renames.concern(d.header) or renames.undid(d.header) for d in deliveries):
            return  # Its turn carries them over before anything is rendered.
        batch = Batch(this.state, this.numbers, this.routes)
        following = await Decoded.of(
            decoded.kind, decoded.streams, batch, deliveries, entries=self.entries
        )
        await render_ahead(following.contenders, batch, self.renders, ends)
        self.following = following

    def turn(self, streams: Sequence[str]) -> Decoded | None:
        """Return the next batch, with what this one has left; None = it has to be read anew.

        Args:
            streams: Those that may be read now.
        """
        batch, following = self.decoded.batch, self.following
        if following is None:
            return None
        left = sorted(batch.unread(), key=lambda delivery: order_of(delivery.entry_id))
        # What is neither settled nor left stays for a reason of its own, and has to come first.
        is_settled = batch.settled + len(left) == len(self.decoded.deliveries)
        may_be_read = {d.stream for d in (*left, *following.deliveries)}.issubset(streams)
        if not (is_settled and may_be_read):
            return None
        following.batch.follow(batch)
        return replace(
            following,
            streams=streams,
            deliveries=[*left, *following.deliveries],
            contenders=[*open_up(left, following.batch), *following.contenders],
        )

    def hand_over(self, batch: Batch) -> None:
        """Pass the rendered parcels to the batch that was read again."""
        if self.following:
            batch.before |= self.following.batch.before
        batch.follow(self.decoded.batch)

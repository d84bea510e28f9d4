"""Prepares batches while requests are under way: reads them, decodes them, and renders them.

Nothing is decided ahead: when its turn comes, the ledger is asked and its events contend as those
of every batch. If anything of the batch before stays where it is, or waits, then what was read
ahead is forgotten, and read again in its order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Self

from segrelay.worker.batch.batch import Batch
from segrelay.worker.batch.judge import decode_batch
from segrelay.worker.batch.read import Reading
from segrelay.worker.batch.render import RowRenderer, render_ahead
from segrelay.worker.errors import SegrelayError
from segrelay.worker.logs import log_bug


@dataclass(slots=True, eq=False)
class NextBatch:
    """The next batch, prepared while the present one is delivered.

    Args:
        reading: The reading of the present batch, which goes on behind it.
        entries: The largest number of entries in a batch.
    """

    present: Batch
    reading: Reading
    renderer: RowRenderer
    entries: int
    prepared: Batch | None = None
    _has_begun: bool = False
    _is_over: bool = False
    _preparing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Enter the block in which the next batch may be prepared."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop preparing, and wait until the step under way has ended."""
        self._is_over = True
        if self._preparing:
            await self._preparing

    def begin(self, ends: Callable[[], Awaitable[bool]]) -> None:
        """Begin to prepare the next batch, if it is worth it; called again, this does nothing."""
        if not self._has_begun:
            self._has_begun = True
            if self._is_worth_it():
                self._preparing = asyncio.ensure_future(self._prepare(ends))

    def _is_worth_it(self) -> bool:
        """Judge by the present batch whether most of the next one will be sent."""
        batch = self.present
        # Before the first answer only what is not sent is settled.
        is_sent = 2 * batch.settled <= len(batch.deliveries)
        return is_sent and batch.state.is_untroubled(batch.streams)

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
        this = self.present
        deliveries = await self.reading.read_on(this.streams, this.deliveries)
        if not deliveries or await ends():
            return
        batch = Batch(this.state, this.numbers, this.triggers, this.kind, this.streams)
        await decode_batch(batch, deliveries, entries=self.entries)
        await render_ahead(batch, self.renderer, ends)
        self.prepared = batch

    def turn(self, streams: Sequence[str]) -> Batch | None:
        """Return the prepared batch; None = read it anew, because something comes before it."""
        present, prepared = self.present, self.prepared
        if prepared is None or present.settled < len(present.deliveries):
            return None
        if not {delivery.stream for delivery in prepared.deliveries}.issubset(streams):
            return None
        prepared.streams = streams
        return prepared

    def hand_over(self, batch: Batch) -> None:
        """Pass the rendered deliveries to the batch that was read again."""
        batch.follow(self.present, self.prepared)

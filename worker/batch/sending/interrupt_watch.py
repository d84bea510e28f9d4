"""Watches the lease and the signal to stop while requests are under way."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from worker.batch.state import Clock

LOOK_SECONDS: Final = 0.2


class Lease(Protocol):
    """Keeps a lease renewed while it is entered, from a thread of its own."""

    def is_valid(self) -> bool:
        """Say whether the lease holds, by a clock that runs on while the process is stopped."""

    def __enter__(self) -> Self:
        """Begin to renew the lease."""

    def __exit__(self, *_: object) -> None:
        """Stop renewing."""


@dataclass(slots=True)
class Stop:
    """The signal to stop: whether and when this process got it.

    Args:
        told_at_seconds: By the drain's clock; 0 = it was not.
    """

    told_at_seconds: float = 0.0

    @property
    def is_told(self) -> bool:
        """Say whether nothing new may begin."""
        return self.told_at_seconds > 0


@dataclass(slots=True)
class InterruptWatch:
    """Checks every 0.2 s, as long as it is entered, whether requests have to end.

    Args:
        grace_seconds: For how long requests may be under way after the signal to stop.
        cut: Set when they must end: the lease was lost, or that time is over.
        stopping: Set when nothing new may begin.
    """

    lease: Lease
    stop: Stop
    clock: Clock
    grace_seconds: float
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _watching: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Say whether nothing new may begin."""
        return self.stopping.is_set() or self.cut.is_set()

    def may_send(self) -> bool:
        """Say whether a request may still be written."""
        return self.lease.is_valid() and not self.cut.is_set()

    async def __aenter__(self) -> Self:
        """Begin to watch lease and signal."""
        self._watching = asyncio.ensure_future(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop watching."""
        assert self._watching is not None
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching

    async def _look(self) -> None:
        while True:
            if self.stop.is_told:
                self.stopping.set()
                if self.clock.seconds() >= self.stop.told_at_seconds + self.grace_seconds:
                    self.cut.set()
            if not self.lease.is_valid():
                self.cut.set()
            await self.clock.sleep(LOOK_SECONDS)

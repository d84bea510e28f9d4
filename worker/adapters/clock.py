"""`SystemClock`: the clock of a drain."""

from __future__ import annotations

import asyncio

from worker.adapters.redis.lease import boottime_seconds


class SystemClock:
    """The clock of a drain: it tells CLOCK_BOOTTIME, and sleeps on the event loop."""

    def seconds(self) -> float:
        """Return the seconds since the machine started; see `boottime_seconds`."""
        return boottime_seconds()

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

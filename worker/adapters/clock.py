"""`SystemClock`: the drain's time."""

from __future__ import annotations

import asyncio

from worker.adapters.redis.lease import boottime_seconds


class SystemClock:
    """CLOCK_BOOTTIME, and the event loop's sleep."""

    def seconds(self) -> float:
        """Return seconds that never stop nor go back."""
        return boottime_seconds()

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

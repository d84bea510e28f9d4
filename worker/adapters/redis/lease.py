"""The lease as a drain holds it, renewed from the one thread that a drain has.

Rendering holds the event loop; the thread goes on. The clock is CLOCK_BOOTTIME, which goes on while
the process or the machine is stopped, so that a lease that lapsed meanwhile is never believed in.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final, Self

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import run_script
from segrelay.worker.errors import RedisUnavailable

RENEW_SECONDS: Final = 2.0


def boottime_seconds() -> float:
    """Return seconds since the machine started; elsewhere than on Linux, monotonic seconds."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class ThreadedLease:
    """Renews a lease from a thread; see `segrelay.worker.batch.send.Lease`.

    It is made before the lease is taken, and so knows a time from which the lease holds.

    Args:
        client: Of its own: used by the thread only.
    """

    def __init__(
        self, client: Redis, keys: PartitionKeys, token: str, lease_seconds: float
    ) -> None:
        self._client = client
        self._keys = keys
        self._token = token
        self._lease_seconds = lease_seconds
        self._until = boottime_seconds() + lease_seconds
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Begin to renew; the lease was taken a moment ago."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop renewing; whoever holds the lease gives it back."""
        self._ended.set()
        self._thread.join(timeout=self._lease_seconds)

    def is_valid(self) -> bool:
        """Say whether the lease still holds."""
        return not self._lost and boottime_seconds() < self._until

    def _keep(self) -> None:
        while not self._lost and not self._ended.wait(RENEW_SECONDS):
            self._renew()

    def _renew(self) -> None:
        asked = boottime_seconds()
        try:
            now_ms = run_script(
                self._client,
                scripts.source("renew"),
                (self._keys.lease,),
                (self._token, round(self._lease_seconds * 1000)),
            )
        except RedisUnavailable:
            return
        if now_ms:
            self._until = asked + self._lease_seconds
        else:
            self._lost = True


class SystemClock:
    """The clock of a drain: it tells CLOCK_BOOTTIME, and sleeps on the event loop."""

    def seconds(self) -> float:
        """Return the seconds since the machine started; see `boottime_seconds`."""
        return boottime_seconds()

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

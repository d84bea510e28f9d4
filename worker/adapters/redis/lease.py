"""The lease as a drain holds it, renewed from the one thread that its process has.

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


class LeaseKeeper:
    """The thread of a process that renews the lease at hand, whichever that is.

    It lives as long as its process: a drain of one event would take longer to start it, and to wait
    for its end, than to do anything else. While there is no lease for long, it sleeps.

    Args:
        client: Used by the thread only.

    Attributes:
        is_asleep: The thread waits until there is a lease again.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._lease: ThreadedLease | None = None
        self._thread: threading.Thread | None = None
        self.is_asleep = self._is_closed = False

    def keep(self, lease: ThreadedLease | None) -> None:
        """Renew this lease from now on, and no other; None = none."""
        with self._changed:
            self._lease = lease
            if lease is not None:
                self._wake()

    def begin(self) -> None:
        """Start the thread before there is a lease; otherwise the first one starts it."""
        with self._changed:
            self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
            self._thread.start()
        elif self.is_asleep:
            self._changed.notify()

    def close(self) -> None:
        """End the thread, and close its client."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._client.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self.is_asleep = self._lease is None
                is_due = not self.is_asleep
                if not self._is_closed:
                    self._changed.wait(RENEW_SECONDS if is_due else None)
                if self._is_closed:
                    return
                lease = self._lease
            if lease and is_due:
                lease.renew(self._client)


class ThreadedLease:
    """Renews a lease from a thread; see `segrelay.worker.batch.partition.Lease`.

    It is made before the lease is taken, and so knows a time from which the lease holds.

    Args:
        keeper: Has the thread, and a client of its own.
    """

    def __init__(
        self, keeper: LeaseKeeper, keys: PartitionKeys, token: str, lease_seconds: float
    ) -> None:
        self._keeper = keeper
        self._keys = keys
        self._token = token
        self._lease_seconds = lease_seconds
        self._until = boottime_seconds() + lease_seconds
        self._lost = False

    def __enter__(self) -> Self:
        """Begin to renew; the lease was taken a moment ago."""
        self._keeper.keep(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop renewing; whoever holds the lease gives it back.

        A renewal that is under way does no harm: a lease that was given back has another token.
        """
        self._keeper.keep(None)

    def is_valid(self) -> bool:
        """Say whether the lease still holds."""
        return not self._lost and boottime_seconds() < self._until

    def renew(self, client: Redis) -> None:
        """Renew the lease, unless it was lost."""
        if self._lost:
            return
        asked = boottime_seconds()
        try:
            now_ms = run_script(
                client,
                scripts.source("intent"),
                (self._keys.lease,),
                (self._token, round(self._lease_seconds * 1000), ""),
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

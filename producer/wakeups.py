"""The wake-up: tell Celery that a partition has something to drain.

It is a courtesy. A wake-up that can't be sent is no error: the workers' sweep finds the partition
within a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from segrelay.worker.contract.celery import (
    SEND_SECONDS,
    drain_message,
    message_text,
    send_messages,
)
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.accept import WakeUpText
from segrelay.worker.contract.redis.client import Redis, RedisError
from segrelay.worker.contract.redis.connection import connect, resolve_broker_url
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import RedisUnavailable

log = structlog.get_logger()

_QUIET_SECONDS: Final = 5.0
"""Seconds without waking after a failure: a dead broker should cost one timeout, not many."""


class CeleryWaker:
    """Asks workers to drain partitions by Celery messages, in about a second at most."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._now = now
        self._client: Redis | None = None
        self._quiet_until = 0.0

    def wake(self, partitions: Iterable[tuple[str, int]], *, queue: str) -> None:
        """Send the messages `drain` in one round trip, unless the broker failed a moment ago.

        Args:
            partitions: The destination's name and the partition's number, of each.
            queue: The kind of the partitions' lane.
        """
        messages = [drain_message(PartitionKeys(*partition), queue) for partition in partitions]
        if not messages or self._now() < self._quiet_until:
            return
        try:
            if self._client is None:
                url = resolve_broker_url(self._settings.redis)
                self._client = connect(url, timeout_seconds=SEND_SECONDS)
            send_messages(self._client, messages)
        except (RedisUnavailable, RedisError) as error:
            self._quiet_until = self._now() + _QUIET_SECONDS
            log.debug("wakeup.failed", error=type(error).__name__)

    def text(self, destination: str, number: int, *, queue: str) -> WakeUpText | None:
        """Return the wake-up for a write that leaves it in its queue itself.

        None = it can't, as the broker is another Redis: what was not woken is woken afterwards.
        """
        if not self._settings.redis.carries_messages:
            return None
        message = drain_message(PartitionKeys(destination, number), queue)
        return WakeUpText(message.queue, message_text(message))


class BackgroundWaker(CeleryWaker):
    """Wakes from a thread, for those who answer somebody: a slow broker delays no answer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._thread = ThreadPoolExecutor(1)

    def wake(self, partitions: Iterable[tuple[str, int]], *, queue: str) -> None:
        """Hand the messages over to the thread."""
        if woken := list(partitions):
            self._thread.submit(super().wake, woken, queue=queue)


class SilentWaker:
    """Wakes nobody and remembers the calls, for tests and for callers that wake later."""

    def __init__(self) -> None:
        self.woken: list[tuple[str, int, str]] = []

    def wake(self, partitions: Iterable[tuple[str, int]], *, queue: str) -> None:
        """Remember the call."""
        self.woken += [(*partition, queue) for partition in partitions]

    def text(self, destination: str, number: int, *, queue: str) -> None:
        """Return nothing: the write wakes nobody, either."""


Waker = CeleryWaker | SilentWaker

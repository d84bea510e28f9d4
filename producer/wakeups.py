"""The wake-up: tell Celery that a partition has something to drain.

It is a courtesy. A wake-up that can't be sent is no error: the workers' sweep finds the partition
within a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Protocol

import structlog
from celery import Celery
from kombu.exceptions import KombuError

from segrelay.worker.contract.celery import IMPATIENT, broker_options, drain_message, send
from segrelay.worker.contract.settings import Settings

log = structlog.get_logger()

_QUIET_SECONDS: Final = 5.0
"""Seconds without waking after a failure: a dead broker should cost one timeout, not many."""


class Waker(Protocol):
    """Asks workers to drain a partition."""

    def wake(self, destination: str, number: int, *, queue: str) -> None:
        """Ask for a drain of the number. Takes at most about a second, never fails."""


class CeleryWaker:
    """Wakes by a Celery message."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._now = now
        self._app: Celery | None = None
        self._quiet_until = 0.0

    def wake(self, destination: str, number: int, *, queue: str) -> None:
        """Send the message `drain`, unless the broker failed a moment ago."""
        if self._now() < self._quiet_until:
            return
        try:
            partition = self._settings.redis.ids.partition(destination, number)
            send(self._client(), drain_message(partition, queue))
        except (KombuError, OSError) as error:
            self._quiet_until = self._now() + _QUIET_SECONDS
            log.debug("wakeup.failed", destination=destination, error=type(error).__name__)

    def _client(self) -> Any:
        if self._app is None:
            app = Celery("segrelay-wakeup", set_as_current=False)
            options = broker_options(self._settings)
            options["broker_transport_options"] |= IMPATIENT
            app.conf.update(options)
            self._app = app
        return self._app


class BackgroundWaker:
    """Wakes from a thread of its own, so that whoever accepts events never waits for a broker."""

    def __init__(self, settings: Settings, *, waker: Waker | None = None) -> None:
        self._waker = waker or CeleryWaker(settings)
        self._calls: SimpleQueue[tuple[str, int, str]] = SimpleQueue()
        threading.Thread(target=self._run, name="wakeup", daemon=True).start()

    def wake(self, destination: str, number: int, *, queue: str) -> None:
        """Hand a wake-up to the thread and return at once."""
        self._calls.put((destination, number, queue))

    def _run(self) -> None:
        while True:
            destination, partition, queue = self._calls.get()
            self._waker.wake(destination, partition, queue=queue)


class SilentWaker:
    """Wakes nobody and remembers the calls, for tests and for callers that wake later."""

    def __init__(self) -> None:
        self.woken: list[tuple[str, int, str]] = []

    def wake(self, destination: str, number: int, *, queue: str) -> None:
        """Remember the call."""
        self.woken.append((destination, number, queue))

"""Sends messages for drains and background jobs from inside a worker; failing to send is no error.

It has a connection of its own with short timeouts: the sweep wakes from the worker's event loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

import structlog
from kombu.exceptions import KombuError

from segrelay.worker.contract.celery import (
    IMPATIENT,
    BackgroundJob,
    Message,
    background_job_message,
    drain_message,
    send,
)
from segrelay.worker.contract.settings import Settings
from segrelay.worker.core.rounds import WakeUp

LOG: Final = structlog.get_logger()


class NodeWaker:
    """Sends messages for drains and background jobs; a process that was forked connects anew."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._producer: Any = None
        self._pid = 0

    def wake(self, calls: Iterable[WakeUp]) -> int:
        """Send messages for drains until one can't be sent; return how many were sent."""
        ids = self._settings.redis.ids
        return self._send_all(
            drain_message(ids.partition(call.destination, call.partition), call.queue)
            for call in calls
        )

    def wake_background_jobs(self, background_jobs: Iterable[BackgroundJob]) -> int:
        """Send messages for background jobs, behind all live work."""
        return self._send_all(map(background_job_message, background_jobs))

    def _send_all(self, messages: Iterable[Message]) -> int:
        sent = 0
        try:
            for message in messages:
                send(self._app, message, add_to_parent=False, producer=self._connected())
                sent += 1
        except (KombuError, OSError) as error:
            self._producer = None
            LOG.debug("wakeup.failed", error=type(error).__name__)
        return sent

    def _connected(self) -> Any:
        if self._producer is None or self._pid != os.getpid():
            connection = self._app.connection_for_write(transport_options=IMPATIENT)
            self._producer = self._app.amqp.Producer(connection, auto_declare=False)
            self._pid = os.getpid()
        return self._producer

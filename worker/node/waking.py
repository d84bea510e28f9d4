"""Sends messages for drains and background jobs from inside a worker; failing to send is no error.

It has a connection of its own with short timeouts: nobody should wait for a wake-up for long.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

import structlog

from segrelay.worker.contract.celery import (
    SEND_SECONDS,
    BackgroundJob,
    Message,
    background_job_message,
    drain_message,
    send_messages,
)
from segrelay.worker.contract.redis.client import Redis, RedisError
from segrelay.worker.contract.redis.connection import connect, resolve_broker_url
from segrelay.worker.contract.settings import Settings
from segrelay.worker.core.rounds import WakeUp
from segrelay.worker.errors import RedisUnavailable

LOG: Final = structlog.get_logger()


class NodeWaker:
    """Sends messages for drains and background jobs; a process that was forked connects anew."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Redis | None = None
        self._pid = 0

    def wake(self, calls: Iterable[WakeUp]) -> None:
        """Send messages for drains, all of them in one round trip."""
        ids = self._settings.redis.ids
        self._send(
            drain_message(ids.partition(call.destination, call.partition), call.queue)
            for call in calls
        )

    def wake_background_jobs(self, background_jobs: Iterable[BackgroundJob]) -> None:
        """Send messages for background jobs, behind all live work."""
        self._send(map(background_job_message, background_jobs))

    def _send(self, messages: Iterable[Message]) -> None:
        try:
            send_messages(self._connected(), messages)
        except (RedisUnavailable, RedisError) as error:
            LOG.debug("wakeup.failed", error=type(error).__name__)

    def _connected(self) -> Redis:
        if self._client is None or self._pid != os.getpid():
            url = resolve_broker_url(self._settings.redis)
            self._client = connect(url, timeout_seconds=SEND_SECONDS)
            self._pid = os.getpid()
        return self._client

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
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis, RedisError
from segrelay.worker.contract.redis.connection import connect, resolve_broker_url
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import RedisUnavailable
from segrelay.worker.node.shared import Call

LOG: Final = structlog.get_logger()


class NodeWaker:
    """Sends messages for drains and background jobs; a process that was forked connects anew."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Redis | None = None
        self._pid = 0

    def wake(self, calls: Iterable[Call]) -> None:
        """Send messages for drains and background jobs, all of them in one round trip."""
        try:
            send_messages(self._connected(), map(self._message, calls))
        except (RedisUnavailable, RedisError) as error:
            LOG.debug("wakeup.failed", error=type(error).__name__)

    def _message(self, call: Call) -> Message:
        if isinstance(call, BackgroundJob):
            return background_job_message(call)
        return drain_message(PartitionKeys(call.destination, call.partition), call.queue)

    def _connected(self) -> Redis:
        if self._client is None or self._pid != os.getpid():
            url = resolve_broker_url(self._settings.redis)
            self._client = connect(url, timeout_seconds=SEND_SECONDS)
            self._pid = os.getpid()
        return self._client

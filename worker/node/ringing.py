"""Ringing from inside of a worker, for drains and errands. A bell that can't be rung is no error.

It has a connection of its own with short timeouts: the sweep rings from the worker's event loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import structlog
from kombu.exceptions import KombuError

from worker.contract.celery.errands import Errand
from worker.contract.celery.options import DRAIN_TASK
from worker.contract.words import BACKFILL
from worker.core.rounds import Ring

LOG: Final = structlog.get_logger()

_TIMEOUT_SECONDS: Final = 1.0


class _Message(NamedTuple):
    task: str
    args: tuple[str | int, ...]
    queue: str
    shown: str


def shown(destination: str, partition: int) -> str:
    """Return the argument line that Flower shows."""
    return f"{destination}, partition {partition}"


class Ringer:
    """Sends `drain` messages; a process that was forked connects anew.

    Args:
        app: The Celery app.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._producer: Any = None
        self._pid = 0

    def ring(self, calls: Iterable[Ring]) -> int:
        """Send a message for each; the first that can't be sent ends it. Returns how many went."""
        return self._send_all(
            _Message(DRAIN_TASK, call[1:], call.queue, shown(call.destination, call.partition))
            for call in calls
        )

    def ring_errands(self, errands: Iterable[Errand]) -> int:
        """Do the same for errands, behind all live work."""
        return self._send_all(
            _Message(errand.task, (errand.name,), BACKFILL, errand.name) for errand in errands
        )

    def _send_all(self, messages: Iterable[_Message]) -> int:
        sent = 0
        try:
            for message in messages:
                self._send(message)
                sent += 1
        except (KombuError, OSError) as error:
            self._producer = None
            LOG.debug("doorbell.failed", error=type(error).__name__)
        return sent

    def _send(self, message: _Message) -> None:
        self._app.send_task(
            message.task,
            args=list(message.args),
            queue=message.queue,
            argsrepr=message.shown,
            kwargsrepr="",
            ignore_result=True,
            retry=False,
            add_to_parent=False,
            producer=self._connected(),
        )

    def _connected(self) -> Any:
        if self._producer is None or self._pid != os.getpid():
            connection = self._app.connection_for_write(
                transport_options={
                    "socket_timeout": _TIMEOUT_SECONDS,
                    "socket_connect_timeout": _TIMEOUT_SECONDS,
                    "max_retries": 0,
                }
            )
            self._producer = self._app.amqp.Producer(connection, auto_declare=False)
            self._pid = os.getpid()
        return self._producer

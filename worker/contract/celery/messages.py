"""The messages that ask a worker for a drain or an errand, and how whoever rings sends them.

Ringing is a courtesy: no message is worth a long wait, since the sweep finds what was not rung for.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from worker.contract.celery.errands import Errand
from worker.contract.celery.options import DRAIN_TASK
from worker.contract.words import BACKFILL

_TIMEOUT_SECONDS: Final = 1.0
IMPATIENT: Final[dict[str, float]] = {
    "socket_timeout": _TIMEOUT_SECONDS,
    "socket_connect_timeout": _TIMEOUT_SECONDS,
    "max_retries": 0,
}
"""Options of the transport for connections on which only bells are rung."""


class Message(NamedTuple):
    """One call of a task.

    Attributes:
        shown: The arguments as Flower shows them.
    """

    task: str
    args: tuple[str | int, ...]
    queue: str
    shown: str


def drain_message(destination: str, partition: int, queue: str) -> Message:
    """Return the message that asks for a drain."""
    shown = f"{destination}, partition {partition}, {queue}"
    return Message(DRAIN_TASK, (destination, partition), queue, shown)


def errand_message(errand: Errand) -> Message:
    """Return the message that asks for an errand, behind all live work."""
    return Message(errand.task, (errand.name,), BACKFILL, errand.name)


def send(app: Any, message: Message, **more: Any) -> None:
    """Send a message once; `more` goes to Celery's `send_task`."""
    app.send_task(
        message.task,
        args=list(message.args),
        queue=message.queue,
        argsrepr=message.shown,
        kwargsrepr="",
        ignore_result=True,
        retry=False,
        **more,
    )

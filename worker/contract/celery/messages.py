"""The Celery messages that ask a worker for a drain or an errand.

Ringing is a courtesy: no message is worth a long wait, since the sweep finds what was not rung for.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol

from worker.contract.celery.wire import DRAIN_TASK, queue_name, shown_arguments
from worker.contract.settings import Settings
from worker.contract.words import BACKFILL

TASKS_MODULES: Final = ("producer.tasks", "ops.person.tasks")
"""The modules of the errands' tasks, as names: the worker imports no producer and no command."""


class Errand(NamedTuple):
    """A step of background work: its Celery task, and the name of its subject, such as a sync.

    Attributes:
        name: Of what the step is of; it stands in Flower.
    """

    task: str
    name: str


class Turn(Protocol):
    """The permission to do one errand."""

    def is_over(self) -> bool:
        """Say whether the errand should end: the node was told to stop, or a drain waits."""


class Turns(Hashable, Protocol):
    """A node, as the errands' tasks see it; the Celery app's attribute `segrelay`."""

    settings: Settings

    def turn(self) -> AbstractContextManager[Turn | None]:
        """Return the node's one turn for errands; None if it is taken, or no slot is free."""

    def ring(self, errands: Iterable[Errand]) -> Any:
        """Send messages for errands; the sweep rings again for those that can't be sent."""


_TIMEOUT_SECONDS: Final = 1.0
IMPATIENT: Final[dict[str, float]] = {
    "socket_timeout": _TIMEOUT_SECONDS,
    "socket_connect_timeout": _TIMEOUT_SECONDS,
    "max_retries": 0,
}
"""The transport's options for connections that only ring: short timeouts, and no retries."""


class Message(NamedTuple):
    """The message for one call of a Celery task.

    Attributes:
        shown: The arguments as Flower shows them.
    """

    task: str
    args: tuple[str | int, ...]
    queue: str
    shown: str


def drain_message(destination: str, partition: int, kind: str) -> Message:
    """Return the message that asks for a drain, of `live` or `backfill` work."""
    return _message(DRAIN_TASK, (destination, partition), kind)


def errand_message(errand: Errand) -> Message:
    """Return the message that asks for an errand, behind all live work."""
    return _message(errand.task, (errand.name,), BACKFILL)


def _message(task: str, args: tuple[str | int, ...], kind: str) -> Message:
    queue = queue_name(kind)
    return Message(task, args, queue, shown_arguments(task, args, queue))


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

"""Drains and errands that a worker is asked for, and the messages that ask for them.

Ringing is a courtesy: no message is worth a long wait, since the sweep finds what was not rung for.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol

from worker.contract.celery.options import DRAIN_TASK
from worker.contract.settings import Settings
from worker.contract.words import BACKFILL

TASKS_MODULES: Final = ("producer.tasks", "ops.person.tasks")
"""The modules of the tasks, by their names: the worker knows neither producers nor commands."""
SYNC_TASK: Final = "segrelay.sync"
RESPONSES_TASK: Final = "segrelay.responses"
RENAMES_TASK: Final = "segrelay.renames"


class Errand(NamedTuple):
    """The address of a step of background work.

    Attributes:
        name: Of what the step is of; it stands in Flower.
    """

    task: str
    name: str


class Turn(Protocol):
    """The permission to do one step."""

    def is_over(self) -> bool:
        """Say whether the step should end: the node was told to, or a drain waits."""


class Turns(Hashable, Protocol):
    """A node, as the tasks see it; the app's attribute `segrelay`."""

    settings: Settings

    def turn(self) -> AbstractContextManager[Turn | None]:
        """Return the node's one turn for errands; None if it is taken, or no slot is free."""

    def ring(self, errands: Iterable[Errand]) -> Any:
        """Send messages for errands; what can't be sent, the sweep finds."""


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

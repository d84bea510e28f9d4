"""Errands: what workers do beside drains, in steps of at most ten seconds, e.g. those of a sync.

The tasks are those of producers, and of renaming people; whoever runs them has to be a node of the
worker. This is what they know of each other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol

from worker.contract.settings import Settings

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

"""A node: one Celery worker with all its processes, and what they share since before the fork."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from worker.signals import Board
from worker.slots import Slots
from worker.waiting import WaitingCalls


@dataclass(frozen=True, slots=True)
class Node:
    """What the processes of one node share."""

    slots: Slots
    waiting: WaitingCalls = field(default_factory=WaitingCalls)
    board: Board = field(default_factory=Board)

    @classmethod
    def of(cls, processes: int, destinations: Iterable[str]) -> Self:
        """Return a new node; call it before any process is forked."""
        return cls(Slots(processes, destinations))

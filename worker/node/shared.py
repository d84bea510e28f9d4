"""A node: one Celery worker with all its processes, and what they share since before the fork."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from worker.node.nameless import nameless_file, read_all, write_all
from worker.node.slots import Slots
from worker.node.stop import Board
from worker.node.waiting import WaitingCalls


class StoppedTriggers:
    """Triggers that this node can't work on, e.g. for a template that is broken.

    It finds out before its processes are forked; the sweep must not ring for them.
    """

    def __init__(self) -> None:
        self._descriptor = nameless_file()

    def write(self, names: Iterable[str]) -> None:
        """Replace what is known."""
        write_all(self._descriptor, "\n".join(sorted(names)))

    def read(self) -> frozenset[str]:
        """Return their names."""
        return frozenset(read_all(self._descriptor).splitlines())


class DoubtedTemplates:
    """Templates whose compiled form differed from the engine, and how often, in this node."""

    def __init__(self) -> None:
        self._descriptor = nameless_file()

    def add(self, found: Mapping[str, int]) -> None:
        """Put in what one process found; of several processes the most counts."""
        known = self.read()
        most = {name: max(count, known.get(name, 0)) for name, count in found.items()}
        if most.items() - known.items():
            write_all(self._descriptor, json.dumps({**known, **most}))

    def read(self) -> dict[str, int]:
        """Return them."""
        text = read_all(self._descriptor)
        return json.loads(text) if text else {}


@dataclass(frozen=True, slots=True)
class Node:
    """What the processes of one node share."""

    slots: Slots
    waiting: WaitingCalls = field(default_factory=WaitingCalls)
    board: Board = field(default_factory=Board)
    stopped: StoppedTriggers = field(default_factory=StoppedTriggers)
    doubted: DoubtedTemplates = field(default_factory=DoubtedTemplates)

    @classmethod
    def of(cls, processes: int, destinations: Iterable[str]) -> Self:
        """Return a new node; call it before any process is forked."""
        return cls(Slots(processes, destinations))

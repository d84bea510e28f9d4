"""Calls that found no free slot in this node, in the order in which they came.

A drain that gives its slot back first sends the next of them to Celery again, and only then rings
for its own partition. Otherwise one busy partition would keep all others waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from worker.contract.words import BACKFILL, LIVE
from worker.core.rounds import Ring
from worker.node.shared.memory import locked, read_all, unnamed_file, write_all

_MOST: Final = 10_000
"""The largest number of calls that are kept; for a lost one, the sweep rings again."""


class WaitingCalls:
    """The list of waiting calls that all processes of a node share, in a file without a name.

    It is made before they are forked. It is not exact: an entry that a killed process has half
    written is left out.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = unnamed_file() if descriptor is None else descriptor

    def add(self, call: Ring) -> None:
        """Put a call at the end, if it does not wait already."""
        with self._all() as calls:
            if call not in calls and len(calls) < _MOST:
                calls.append(call)

    def next_after(self, freed: Ring) -> Ring | None:
        """Take the first call that can use the slots of the ended drain; live calls first."""
        with self._all() as calls:
            fitting = [call for call in calls if _fits(call, freed)]
            if not fitting:
                return None
            found = min(fitting, key=lambda call: call.queue != LIVE)
            calls.remove(found)
            return found

    def next_live(self, destination: str) -> Ring | None:
        """Take the first live call of a destination."""
        with self._all() as calls:
            found = next((c for c in calls if c[:2] == (LIVE, destination)), None)
            if found:
                calls.remove(found)
            return found

    def holds_any(self) -> bool:
        """Say whether any call waits."""
        with self._all() as calls:
            return bool(calls)

    def holds_live(self) -> bool:
        """Say whether a live call waits."""
        with self._all() as calls:
            return any(call.queue == LIVE for call in calls)

    @contextmanager
    def _all(self) -> Iterator[list[Ring]]:
        with locked(self._descriptor):
            lines = read_all(self._descriptor).splitlines()
            calls = [call for line in lines if (call := _parsed(line))]
            before = list(calls)
            yield calls
            if calls != before:
                write_all(self._descriptor, "".join(map(_written, calls)))


def _fits(call: Ring, freed: Ring) -> bool:
    return call.destination == freed.destination or call.queue == freed.queue == BACKFILL


def _written(call: Ring) -> str:
    return f"{call.queue} {call.destination} {call.partition}\n"


def _parsed(line: str) -> Ring | None:
    match line.split(" "):
        case [queue, destination, partition] if partition.isdecimal():
            return Ring(queue, destination, int(partition))
        case _:
            return None

"""Slots: how many drains of one kind a node runs at once.

One process of a node always stays free for other destinations: of any one, a drain less runs than
there are processes. Of the backfill lane one less again where there are more than three, so that
live work finds a slot of its destination free. Of errands a node does one at a time, in the place
of a drain of the backfill lane. A slot is a locked byte of a file without a name, so the kernel
gives it back however its holder dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from typing import Final, Self

from worker.contract.words import BACKFILL
from worker.core.rounds import Ring
from worker.node.shared.memory import unnamed_file

_ROOM: Final = 65_536
"""The bytes for each kind of slot: more than a node can have processes."""
_OF_BACKFILL: Final = 0


class DrainSlot:
    """The permission to drain, given back when its `with` block or the process ends."""

    def __init__(self, descriptor: int, places: list[int]) -> None:
        self._descriptor = descriptor
        self._places = places

    def __enter__(self) -> Self:
        """Hold the slot."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the slot back."""
        for place in self._places:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)
        self._places = []


class Slots:
    """The slots of one node; made before its processes are forked. A process holds one at most.

    Args:
        destinations: Their names; the same in all processes.
    """

    def __init__(self, processes: int, destinations: Iterable[str]) -> None:
        self._most = max(1, processes - 1)
        self._most_of_backfill = max(min(2, self._most), self._most - 1)
        self._rooms = {name: number for number, name in enumerate(destinations, start=1)}
        self._descriptor = unnamed_file()

    def take(self, call: Ring) -> DrainSlot | None:
        """Take the slots that a drain needs; None where one of them is not free."""
        rooms = [(self._rooms.get(call.destination, len(self._rooms) + 1), self._most)]
        if call.queue == BACKFILL:
            rooms.append((_OF_BACKFILL, self._most_of_backfill))
        return self._take(rooms)

    def take_for_errand(self) -> DrainSlot | None:
        """Take the node's one slot for errands, and one of the backfill lane's."""
        return self._take([(len(self._rooms) + 2, 1), (_OF_BACKFILL, self._most_of_backfill)])

    def _take(self, rooms: Iterable[tuple[int, int]]) -> DrainSlot | None:
        """Take a slot of each kind (room), or return None if all slots of one kind are taken."""
        slot = DrainSlot(self._descriptor, places := [])
        for room, most in rooms:
            place = self._lock_one(room, most)
            if place is None:
                slot.__exit__()
                return None
            places.append(place)
        return slot

    def are_free(self) -> bool:
        """Say whether no process of the node drains; not to be asked by one that does."""
        for room in range(1, len(self._rooms) + 2):
            for place in range(room * _ROOM, room * _ROOM + self._most):
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                except OSError:
                    return False
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)
        return True

    def _lock_one(self, room: int, most: int) -> int | None:
        first = room * _ROOM
        for place in range(first, first + most):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place, os.SEEK_SET)
            except OSError:
                continue
            return place
        return None

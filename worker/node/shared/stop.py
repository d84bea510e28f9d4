"""The signal to stop as a drain sees it: the node's board, and SIGTERM.

The parent writes the time of a warm shutdown on the board; every drain of the node sees it, also
one that begins later. SIGTERM may reach a child directly, e.g. where a supervisor ends a whole
process group. A drain has its own answer to it, set while it runs: Celery's pool would end the
process at once, in the middle of a request, and replaces what was set before the first task.
"""

from __future__ import annotations

import mmap
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from worker.adapters.redis.lease import boottime_seconds
from worker.batch.sending.interrupt_watch import Stop

_SECONDS: Final = struct.Struct("d")


class Board:
    """The times of the order to stop and of the last drain's begin, seen by all processes.

    It is made before they are forked.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * _SECONDS.size)

    @property
    def told_at_seconds(self) -> float:
        """Return the time at which the node was told to stop (CLOCK_BOOTTIME); 0 = it was not."""
        return self._read(0)

    @property
    def began_at_seconds(self) -> float:
        """Return the time at which a drain last began in this node; 0 = none has."""
        return self._read(1)

    def tell_to_stop(self) -> None:
        """Record the time of the order to stop, unless there was one already."""
        if not self.told_at_seconds:
            _SECONDS.pack_into(self._memory, 0, boottime_seconds())

    def begin(self) -> None:
        """Record the time at which a drain begins."""
        _SECONDS.pack_into(self._memory, _SECONDS.size, boottime_seconds())

    def _read(self, number: int) -> float:
        seconds: float = _SECONDS.unpack_from(self._memory, number * _SECONDS.size)[0]
        return seconds


class BoardStop(Stop):
    """The order to stop a drain, from the node's board or from a signal to this process."""

    __slots__ = ("_board", "_told_at_seconds")

    def __init__(self, board: Board) -> None:
        self._board = board
        super().__init__()

    @property
    def told_at_seconds(self) -> float:
        """Return the time at which the signal came; 0 = it has not come."""
        return self._told_at_seconds or self._board.told_at_seconds

    @told_at_seconds.setter
    def told_at_seconds(self, seconds: float) -> None:
        self._told_at_seconds = seconds


@contextmanager
def listening(board: Board) -> Iterator[BoardStop]:
    """Yield the signal to stop for a drain; meanwhile SIGTERM counts as one."""
    stop = BoardStop(board)

    def tell(*_: object) -> None:
        stop.told_at_seconds = boottime_seconds()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)

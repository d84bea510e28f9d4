"""An event loop whose time passes only while everybody sleeps: hours take milliseconds."""

import asyncio
import selectors
from typing import Any


class _NobodyWakesError(RuntimeError):
    """Everybody waits for something that will never come."""


class _Selector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise _NobodyWakesError
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass in which nothing happens, as while something holds the loop."""
        self._virtual.now += seconds

    def close(self) -> None:
        """Cancel what still runs, and close."""
        if not self.is_closed():
            for task in asyncio.all_tasks(self):
                task.cancel()
            self.run_until_complete(asyncio.sleep(0))
        super().close()

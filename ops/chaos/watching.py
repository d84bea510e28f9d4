"""Checks during the whole run that the sum holds, and that no count ever falls."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

from ops.rig.rig import Rig
from ops.status.status import read_status

_LOOK_SECONDS: Final = 0.5
_ENDS: Final = ("delivered", "skipped", "dead", "discarded")


@dataclass(slots=True)
class Watch:
    """A thread that asks for the status while Redis is up.

    Attributes:
        are_moved: Whether deliveries are moved to other partitions meanwhile. What has arrived in
            one and is not yet removed from the other is counted in both, so that counts may fall.
        looks: The number of checks.
        broken: Checks that failed.
        status: The last one.
    """

    rig: Rig
    are_moved: bool = False
    looks: int = 0
    broken: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start looking."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def settled(self) -> int:
        """Return how many deliveries have come to their end."""
        return sum(self.status.get(name, 0) for name in _ENDS)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            status = self.rig.ask_redis(self._read, away=None)
            if status is not None:
                self._look(status)

    def _read(self, client: Redis) -> dict[str, Any] | None:
        return read_status(client, self.rig.settings)

    def _look(self, status: dict[str, Any]) -> None:
        self.looks += 1
        total = sum(status[name] for name in (*_ENDS, "waiting"))
        if status["accepted"] != total:
            self._broken(f"the sum does not hold: accepted {status['accepted']}, found {total}")
        for name in () if self.are_moved else ("accepted", *_ENDS):
            if status[name] < self.status.get(name, 0):
                self._broken(f"{name} fell from {self.status[name]} to {status[name]}")
        self.status = status

    def _broken(self, message: str) -> None:
        self.broken.append(f"{time.strftime('%H:%M:%S')} {message}")

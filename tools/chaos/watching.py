"""Checks during the whole run that the six counts add up, and that no count ever falls."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

from segrelay.ops.demo.rig import Rig
from segrelay.ops.status.status import read_status
from segrelay.worker.contract.redis.connection import redis_errors, servers_of

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
        masters: The processes of Redis that it came from. Behind Sentinels and in a Cluster, what
            no replica has confirmed is counted, and may go with its master: counts may fall then.
    """

    rig: Rig
    are_moved: bool = False
    looks: int = 0
    broken: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    masters: frozenset[str] = frozenset()
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def settled(self) -> int:
        """Return the number of deliveries that have an outcome."""
        return sum(self.status.get(name, 0) for name in _ENDS)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Ask for the status, and compare it with the last one."""
        found = self.rig.ask_redis(self._read, away=None)
        if found is not None:
            self._compare(*found)

    def _read(self, client: Redis) -> tuple[dict[str, Any], frozenset[str]]:
        before = _masters(client)
        status = read_status(client, self.rig.settings)
        return status, before | _masters(client)

    def _compare(self, status: dict[str, Any], masters: frozenset[str]) -> None:
        self.looks += 1
        total = sum(status[name] for name in (*_ENDS, "waiting"))
        if status["accepted"] != total:
            self._broken(f"the sum does not hold: accepted {status['accepted']}, found {total}")
        is_other = bool(self.rig.settings.redis.replicas) and masters != self.masters
        for name in () if self.are_moved or is_other else ("accepted", *_ENDS):
            if status[name] < self.status.get(name, 0):
                self._broken(f"{name} fell from {self.status[name]} to {status[name]}")
        self.status, self.masters = status, masters

    def _broken(self, message: str) -> None:
        self.broken.append(f"{time.strftime('%H:%M:%S')} {message}")


def _masters(client: Redis) -> frozenset[str]:
    """Return the run ids of the processes of all masters."""
    with redis_errors():
        answers: list[Any] = [one.info("server") for _, one in servers_of(client)]
    return frozenset(answer["run_id"] for answer in answers)

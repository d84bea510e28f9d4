"""Checks during a run that the six counts add up and never fall, and samples of its course."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from segrelay.ops.status.command import read_status
from segrelay.worker.contract.redis.client import Redis
from tests.rig import Rig
from tools.chaos.injector import FaultInjector, children

_LOOK_SECONDS: Final = 0.5
_ENDS: Final = ("delivered", "skipped", "dead", "discarded")


@dataclass(slots=True)
class Watch:
    """A thread that asks for the status while Redis is up.

    Attributes:
        looks: The number of checks.
        broken: Checks that failed.
        status: The last status.
        masters: The processes of Redis that it came from. Behind Sentinels and in a Cluster, what
            no replica has confirmed is counted, and may go with its master: counts may fall then.
    """

    rig: Rig
    looks: int = 0
    broken: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    masters: frozenset[str] = frozenset()
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
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
        for name in () if is_other else ("accepted", *_ENDS):
            if status[name] < self.status.get(name, 0):
                self._broken(f"{name} fell from {self.status[name]} to {status[name]}")
        self.status, self.masters = status, masters

    def _broken(self, message: str) -> None:
        self.broken.append(f"{time.strftime('%H:%M:%S')} {message}")


def _masters(client: Redis) -> frozenset[str]:
    """Return the run ids of the processes of all masters."""
    answers: list[Any] = [one.info("server") for _, one in client.masters()]
    return frozenset(answer["run_id"] for answer in answers)


PARTS: Final = 10
_MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class RunSample:
    """A sample of the course; the memory of a process or server that is away counts as 0.

    Args:
        seconds: The time since the run's begin.
        settled: Deliveries that had come to their end.
        waiting: Deliveries that waited.
        per_second: Deliveries that came to their end each second since the sample before.
        worker_mb: Resident memory of the largest process of a worker.
        receiver_mb: Resident memory of the receiver.
        redis_mb: Memory that all masters use.
    """

    seconds: float
    settled: int
    waiting: int
    per_second: float
    worker_mb: int
    receiver_mb: int
    redis_mb: int


@dataclass(slots=True)
class Course:
    """The samples of a run.

    Args:
        disruptions: The number of disruptions in the whole run; a sample is taken after each tenth
            of them.
    """

    rig: Rig
    injector: FaultInjector
    watch: Watch
    disruptions: int
    samples: list[RunSample] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)

    def after(self, number: int) -> None:
        """Take a sample if this disruption is the last one of a tenth."""
        if number * PARTS // self.disruptions > (number - 1) * PARTS // self.disruptions:
            self.sample()

    def sample(self) -> None:
        self.samples.append(self._measured())

    def _measured(self) -> RunSample:
        seconds, settled = time.monotonic() - self._begun, self.watch.settled()
        before = self.samples[-1] if self.samples else None
        since, known = (before.seconds, before.settled) if before else (0.0, 0)
        workers = [each.pid for each in self.rig.workers]
        workers += [child for pid in workers for child in children(pid)]
        receiver = self.injector.receiver_pid()
        return RunSample(
            seconds=round(seconds, 1),
            settled=settled,
            waiting=self.watch.status.get("waiting", 0),
            per_second=round((settled - known) / max(seconds - since, 0.1), 1),
            worker_mb=max(map(_resident, workers), default=0) // _MEGABYTE,
            receiver_mb=_resident(receiver) // _MEGABYTE if receiver else 0,
            redis_mb=self.rig.ask_redis(_used_memory, away=0) // _MEGABYTE,
        )


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _used_memory(client: Redis) -> int:
    return sum(int(server.info("memory")["used_memory"]) for _, server in client.masters())

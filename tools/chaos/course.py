"""The course of a run: deliveries a second and memory, measured at each tenth of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from redis import Redis

from segrelay.ops.demo.rig import Rig
from segrelay.worker.contract.redis.connection import servers_of
from tools.chaos.faults.fault_injector import FaultInjector, children
from tools.chaos.watching import Watch

PARTS: Final = 10
_MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class RunSample:
    """A sample of the course; the memory of a process or server that is away counts as 0.

    Args:
        seconds: Since the run's begin.
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
        disruptions: Their number in the whole run; a sample is taken after each tenth of them.
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
        """Take a sample."""
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
    return sum(int(server.info("memory")["used_memory"]) for _, server in servers_of(client))

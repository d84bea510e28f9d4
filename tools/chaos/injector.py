"""Injects the faults of a plan into the running system, and repairs them.

Behind Sentinels and in a Cluster each disruption of a master ends when every master has its
replicas again: all copies are never lost at once.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from segrelay.ops import embedded
from segrelay.worker.contract.redis.client import key_slot
from tests.rig import WORKER_READY, Rig, kill_group
from tests.topologies import LocalCluster, Sentinels
from tools.chaos.feeding import Readers
from tools.chaos.plan import (
    LIMITS_PER_MINUTE,
    REDIS_GONE_SECONDS,
    STOPPED_SECONDS,
    WORKERS,
    Disruption,
    Plan,
)

_REPLICAS = 2


class Masters(Protocol):
    """Redis servers whose replicas take over when a master is lost."""

    def kill_one(self) -> None:
        """End a master with SIGKILL, and start it again when a replica has taken over."""

    def stop_one(self, seconds: float) -> None:
        """Suspend a master (SIGSTOP), long enough for a replica to take over."""

    def move_slot(self) -> None:
        """Move the slot of a partition to another master."""


@dataclass(slots=True)
class SentinelMasters:
    """The one master behind Sentinels."""

    sentinels: Sentinels

    def kill_one(self) -> None:
        """See `Masters`."""
        before = self.sentinels.kill_master()
        self.sentinels.start_server(before, self.sentinels.await_other_master(before))
        self.sentinels.await_replicas(_REPLICAS)

    def stop_one(self, seconds: float) -> None:
        """See `Masters`."""
        before = self.sentinels.master()
        _stop(self.sentinels.servers[before], seconds)
        self.sentinels.await_other_master(before)
        self.sentinels.await_replicas(_REPLICAS)

    def move_slot(self) -> None:
        """Do nothing: a master behind Sentinels has no slots."""


@dataclass(slots=True)
class ClusterMasters:
    """The masters of a Cluster."""

    cluster: LocalCluster
    rig: Rig
    rng: random.Random

    def kill_one(self) -> None:
        """See `Masters`."""
        slot = self._slot()
        port = self.cluster.owner(slot)
        self.cluster.kill_node(port)
        self.cluster.await_other_owner(slot, port)
        self.cluster.start_node(port)
        self.cluster.await_replicas()

    def stop_one(self, seconds: float) -> None:
        """See `Masters`."""
        _stop(self.cluster.nodes[self.cluster.owner(self._slot())], seconds)
        self.cluster.await_replicas()

    def move_slot(self) -> None:
        """See `Masters`."""
        slot = self._slot()
        before = self.cluster.owner(slot)
        others = [port for port in self.cluster.masters() if port != before]
        self.cluster.move_slot(slot, self.rng.choice(others))
        self.cluster.await_replicas()

    def _slot(self) -> int:
        return key_slot(self.rng.choice(self.rig.partitions()).streams.encode())


def _stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGCONT)


_STOP_SECONDS_AT_MOST: Final = 20.0
_LOGS_SECONDS: Final = 1.0
_READY_SECONDS: Final = 180.0
"""Seconds to wait for a ready worker: a busy machine takes long to start one."""
_LOOK_SECONDS: Final = 0.05


@dataclass(slots=True)
class FaultInjector:
    """Injects the faults of a plan, and repairs them.

    Args:
        masters: The masters behind Sentinels or in a Cluster; None = there is a single Redis.

    Attributes:
        done: The number of disruptions, by their kind.
        drains_hit: Drains that could have been under way in all killed or stopped processes.
        stop_seconds: The duration of each orderly stop.
        problems: Processes that did not end or start as they must.
    """

    rig: Rig
    plan: Plan
    rng: random.Random
    readers: Readers
    masters: Masters | None = None
    done: Counter[Disruption] = field(default_factory=Counter)
    drains_hit: int = 0
    stop_seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _log_starts: dict[int, int] = field(default_factory=dict)
    _receiver: subprocess.Popen[bytes] | None = None

    def start_workers(self) -> None:
        for number in range(WORKERS):
            self._start(number, fresh=number >= len(self.rig.workers))

    def start_receiver(self) -> None:
        """Start the receiver of webhooks."""
        self._receiver = self.rig.start_beside("serve")

    def receiver_pid(self) -> int:
        """Return the process id of the receiver; 0 before it was started."""
        return self._receiver.pid if self._receiver else 0

    def end_receiver(self) -> None:
        """Stop the receiver gracefully (SIGTERM), and note a problem if it does not end well."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.terminate()
            try:
                code = receiver.wait(_STOP_SECONDS_AT_MOST)
            except subprocess.TimeoutExpired:
                kill_group(receiver)
                code = -signal.SIGKILL
            if code:
                self.problems.append(f"the receiver ended with {code} when told to stop")

    def _start(self, number: int, *, fresh: bool = False) -> None:
        log = self.rig.worker_log(number)
        self._log_starts[number] = log.stat().st_size if log.exists() else 0
        option = f"--concurrency={self.plan.concurrency}"
        self.rig.start_worker(option, number=-1 if fresh else number)

    def victim(self) -> int:
        """Return the number of a random worker that is ready, and wait until there is one."""
        gives_up_at = time.monotonic() + _READY_SECONDS
        while time.monotonic() < gives_up_at:
            self.revive()
            ready = [n for n in range(WORKERS) if self._is_ready(n)]
            if ready:
                return self.rng.choice(ready)
            time.sleep(_LOOK_SECONDS)
        self.problems.append(f"no worker came up within {_READY_SECONDS:.0f} s")
        return 0

    def revive(self) -> None:
        """Restart workers and the receiver if they ended by themselves, as a supervisor does.

        A worker must never end. The receiver may, with 1 and without a traceback, if Redis is lost
        while it starts.
        """
        code = self._receiver.poll() if self._receiver is not None else None
        if code is not None:
            if code != 1 or b"Traceback" in (self.rig.folder / "serve.log").read_bytes():
                self.problems.append(f"the receiver ended by itself with {code}; see its log")
            self.start_receiver()
        for number, worker in enumerate(self.rig.workers):
            code = worker.poll()
            if code is not None:
                self.problems.append(f"worker {number} ended by itself with {code}")
                self._start(number)

    def _is_ready(self, number: int) -> bool:
        log = self.rig.worker_log(number)
        with log.open("rb") as lines:
            lines.seek(self._log_starts[number])
            return WORKER_READY in lines.read()

    def inject(self, disruption: Disruption) -> None:
        """Carry out a disruption on a worker that is ready, or on something that it depends on."""
        getattr(self, f"_{disruption.value}")(self.victim())  # one method for each kind
        self.done[disruption] += 1

    def _kill_worker(self, number: int) -> None:
        self.drains_hit += self.plan.concurrency
        kill_group(self.rig.workers[number])
        self._start(number)

    def _kill_child(self, number: int) -> None:
        child = self._child(number)
        self.drains_hit += 1
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    def _kill_redis(self, _number: int) -> None:
        if self.masters:
            self.drains_hit += self.plan.concurrency * WORKERS
            self.masters.kill_one()
            return
        pid = self.rig.redis_pid()
        if not pid:
            self.problems.append("Redis was not there to be killed")
            return
        self.drains_hit += self.plan.concurrency * WORKERS
        os.kill(pid, signal.SIGKILL)
        time.sleep(self.rng.uniform(*REDIS_GONE_SECONDS))
        self.rig.start_redis()

    def _stop_master(self, _number: int) -> None:
        if self.masters:
            self.drains_hit += self.plan.concurrency * WORKERS
            self.masters.stop_one(self.plan.master_stopped_seconds)

    def _move_slot(self, _number: int) -> None:
        if self.masters:
            self.masters.move_slot()

    def _kill_receiver(self, _number: int) -> None:
        if self._receiver is not None:
            kill_group(self._receiver)
        self.start_receiver()

    def _kill_reader(self, _number: int) -> None:
        self.readers.kill_one()

    def _stop(self, number: int) -> None:
        """Suspend one process that drains, or a whole worker, for longer than a lease (SIGSTOP)."""
        whole = self.rng.random() < 0.5  # noqa: PLR2004 - a coin
        self.drains_hit += self.plan.concurrency if whole else 1
        worker = self.rig.workers[number].pid
        target, send = (worker, os.killpg) if whole else (self._child(number), os.kill)
        with suppress(ProcessLookupError):
            send(target, signal.SIGSTOP)
            try:
                time.sleep(self.rng.uniform(*STOPPED_SECONDS))
            finally:
                send(target, signal.SIGCONT)

    def _orderly(self, number: int) -> None:
        self.end(number)
        self._start(number)

    def end(self, number: int) -> None:
        """Stop a worker gracefully (SIGTERM), and record how long it took or what went wrong."""
        begun = time.monotonic()
        worker = self.rig.workers[number]
        expected = {0} if self._is_ready(number) else {0, -signal.SIGTERM}
        worker.terminate()
        try:
            code = worker.wait(_STOP_SECONDS_AT_MOST)
        except subprocess.TimeoutExpired:
            self._log_stacks(worker.pid)
            kill_group(worker)
            self.problems.append(
                f"worker {number} did not end in {_STOP_SECONDS_AT_MOST:.0f} s;"
                " its log tells where its processes stood"
            )
            return
        self.stop_seconds.append(round(time.monotonic() - begun, 2))
        if code not in expected:
            self.problems.append(f"worker {number} ended with {code} when told to stop")

    def _log_stacks(self, parent: int) -> None:
        """Make a worker and its children log their stacks, as Celery does at SIGUSR1."""
        for pid in (parent, *children(parent)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
            time.sleep(_LOGS_SECONDS)

    def _restart(self, _number: int) -> None:
        for number in range(WORKERS):
            self.end(number)
        if not self.masters:
            embedded.stop(self.rig.settings.redis.data_dir)
            self.rig.start_redis()
        self.start_workers()

    def _limit(self, _number: int) -> None:
        self.rig.sandbox.settings(limit_per_minute=self.rng.choice(LIMITS_PER_MINUTE))

    def _child(self, number: int) -> int:
        """Return the process id of a random child of a worker, or of the worker if it has none."""
        parent = self.rig.workers[number].pid
        found = children(parent)
        return self.rng.choice(found) if found else parent


def children(parent: int) -> list[int]:
    """Return the children of a process."""
    listing = subprocess.run(
        ["ps", "-ax", "-o", "pid=,ppid="],  # noqa: S607 - where it is differs
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    rows = (line.split() for line in listing.stdout.splitlines())
    return [int(pid) for pid, ppid in rows if int(ppid) == parent]

"""The masters that a run kills and stops, behind Sentinels or in a Cluster.

Each disruption ends when every master has its replicas again: all copies are never lost at once.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Protocol

from redis.crc import key_slot

from segrelay.ops.demo.rig import Rig
from segrelay.ops.embedded.topologies import LocalCluster, Sentinels

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

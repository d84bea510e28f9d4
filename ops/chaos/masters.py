"""The masters of a Cluster, which a run kills, stops and moves slots between."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass

from redis.crc import key_slot

from ops.chaos.plan import MASTER_STOPPED_SECONDS
from ops.embedded.cluster import LocalCluster
from ops.rig import Rig


@dataclass(slots=True)
class Masters:
    """The masters of the Cluster that a run works with.

    Each disruption ends when every master has its replica again: more than one copy is never lost.
    """

    cluster: LocalCluster
    rig: Rig
    rng: random.Random

    def kill_one(self) -> None:
        """End a master with SIGKILL, and start it again when its replica has taken over."""
        slot = self._slot()
        port = self.cluster.owner(slot)
        self.cluster.kill_node(port)
        self.cluster.await_other_owner(slot, port)
        self.cluster.start_node(port)
        self.cluster.await_replicas()

    def stop_one(self) -> None:
        """Stop a master for so long that its replica takes over."""
        process = self.cluster.nodes[self.cluster.owner(self._slot())]
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(MASTER_STOPPED_SECONDS)
        finally:
            process.send_signal(signal.SIGCONT)
        self.cluster.await_replicas()

    def move_slot(self) -> None:
        """Move the slot of a partition to another master."""
        slot = self._slot()
        before = self.cluster.owner(slot)
        others = [port for port in self.cluster.masters() if port != before]
        self.cluster.move_slot(slot, self.rng.choice(others))
        self.cluster.await_replicas()

    def _slot(self) -> int:
        return key_slot(self.rng.choice(self.rig.partitions()).streams.encode())

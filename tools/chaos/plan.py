"""The plan of a run: sizes, shares, and the order in which things are broken."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LEASE_SECONDS: Final = 3.0
LATE_SECONDS: Final = 3.0
DEADLINE_SECONDS: Final = 4.0
"""Request deadline in seconds; like lease and `late` it is short, so that a run takes minutes."""
SANDBOX_LATE_SECONDS: Final = 1.5
"""Seconds until a request without an answer takes effect, fewer than LATE_SECONDS as at Insider."""
STOPPED_SECONDS: Final = (2.2, 4.0)
"""The shortest and longest stop of a process in seconds; longer than a lease."""
REDIS_GONE_SECONDS: Final = (0.0, 2.0)
LYTICS_SWITCHES: Final = {"error_shares": {"429": 0.02, "503": 0.03}, "repeated_rows": 0.1}
"""Faults of the sandbox's Lytics when it is asked for an audience."""
SINGLE: Final = "single"
SENTINEL: Final = "sentinel"
CLUSTER: Final = "cluster"
NODE_MS: Final = 2_000
"""Milliseconds after which a silent node of the Cluster counts as lost."""
RATE_PER_MINUTE: Final = 6_000
LIMITS_PER_MINUTE: Final = (6_000, 3_000, 1_500, 900)


WORKERS: Final = 2
DUPLICATES: Final = 0.1
"""The share of the events that is sent twice."""
REEVALUATED: Final = 0.25
"""The share of the people who enter and leave ten audiences at about one time."""
MANY_AUDIENCES: Final = tuple(f"many-{number}" for number in range(10))
"""Audiences that a share of the people enter and leave at about one time."""


class Disruption(StrEnum):
    """A kind of disruption of the running system."""

    KILL_WORKER = "kill_worker"
    """SIGKILL of a worker's whole process group."""
    KILL_CHILD = "kill_child"
    """SIGKILL of one process that drains."""
    KILL_REDIS = "kill_redis"
    """SIGKILL of Redis, or of a master; started again on the same files."""
    STOP_MASTER = "stop_master"
    """SIGSTOP of a master, long enough for a replica to take over."""
    MOVE_SLOT = "move_slot"
    """A slot with work is moved to another master, key by key."""
    STOP = "stop"
    """SIGSTOP for longer than a lease, then SIGCONT."""
    ORDERLY = "orderly"
    """SIGTERM of a worker, which must end by itself."""
    RESTART = "restart"
    """All workers and the embedded Redis are stopped gracefully and started again."""
    KILL_RECEIVER = "kill_receiver"
    """SIGKILL of the receiver of webhooks; started again at once."""
    KILL_READER = "kill_reader"
    """SIGKILL of a process that reads a backfill, if one runs; whoever started it resumes."""
    LIMIT = "limit"
    """The sandbox changes how many requests a minute it takes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of one run; the same plan repeats the same run, except for the machine's timing.

    Args:
        events: Different events; some are sent twice.
        people: People whom the events concern.
        regulars: Members of an audience of Lytics that only a sync knows.
        seed: The same seed makes the same events, orders and disruptions.
        partitions: Partitions of the destination, over which people are spread.
        concurrency: Processes in each worker.
        worker_kills: SIGKILLs of workers' process groups and of single children, in turn.
        redis_kills: SIGKILLs of Redis, or of a master.
        receiver_kills: SIGKILLs of the receiver of webhooks.
        reader_kills: SIGKILLs of readers of backfills.
        stops: SIGSTOPs for longer than a lease.
        master_stopped_seconds: The duration of each SIGSTOP of a master.
        orderly_stops: SIGTERMs of workers.
        restarts: Restarts of all workers and of Redis.
        limit_changes: Changes of the sandbox's limit.
        states: State events of all audiences of one person, for each event; older events of the
            same person are still to come.
        rewrites: The rewrites in place of an export while a sync reads it.
        exported: People who are in every version of it.
        minutes: A run that takes longer has failed.
        redis: `single`; `sentinel`, a master and two replicas; or `cluster`, three masters with a
            replica each. As many masters are stopped, and in a Cluster slots moved, as killed.
    """

    events: int = 100_000
    people: int = 10_000
    regulars: int = 1_000
    seed: int = 1
    partitions: int = 16
    concurrency: int = 2
    worker_kills: int = 60
    redis_kills: int = 5
    receiver_kills: int = 5
    reader_kills: int = 5
    stops: int = 6
    master_stopped_seconds: float = 15.0
    orderly_stops: int = 6
    restarts: int = 2
    limit_changes: int = 4
    states: float = 0.02
    rewrites: int = 8
    exported: int = 4_000
    minutes: float = 15.0
    redis: str = SINGLE

    def disruptions(self, rng: random.Random) -> list[Disruption]:
        """Return all disruptions, in a random order."""
        order = list(self._counts().elements())
        rng.shuffle(order)
        return order

    def disruption_count(self) -> int:
        """Return the number of all disruptions."""
        return self._counts().total()

    def _counts(self) -> Counter[Disruption]:
        groups = (self.worker_kills + 1) // 2
        stops = 0 if self.redis == SINGLE else self.redis_kills
        moves = self.redis_kills if self.redis == CLUSTER else 0
        return Counter(
            {
                Disruption.KILL_WORKER: groups,
                Disruption.KILL_CHILD: self.worker_kills - groups,
                Disruption.KILL_REDIS: self.redis_kills,
                Disruption.STOP_MASTER: stops,
                Disruption.MOVE_SLOT: moves,
                Disruption.KILL_RECEIVER: self.receiver_kills,
                Disruption.KILL_READER: self.reader_kills,
                Disruption.STOP: self.stops,
                Disruption.ORDERLY: self.orderly_stops,
                Disruption.RESTART: self.restarts,
                Disruption.LIMIT: self.limit_changes,
            }
        )

    def sandbox_settings(self) -> dict[str, object]:
        """Return the sandbox's switches."""
        return {
            "seed": self.seed,
            "latency_seconds": 0.02,
            "jitter_seconds": 0.03,
            "limit_per_minute": RATE_PER_MINUTE,
            "error_shares": {"500": 0.04, "502": 0.02, "503": 0.04},
            "errors_applied": 1 / 3,
            "lost_answers": 0.02,
            "late_share": 0.01,
            "late_seconds": SANDBOX_LATE_SECONDS,
            "track_events": True,
            "lytics": LYTICS_SWITCHES,
        }

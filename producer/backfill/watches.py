"""The state of a watch in Redis: what it found at its last look."""

from __future__ import annotations

from dataclasses import dataclass, field

from segrelay.producer.steps import StepState, StepStore
from segrelay.worker.contract import keys
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis


@dataclass(slots=True)
class WatchState(StepState):
    """The state of a watch.

    Args:
        source: The place at which it looked first.
        existing: The number of files that were there then, and were left alone.
        job: The job that is read; "" = none is.
        start_at_ms: The time before which no other reader of it is started.
        waiting: New files at the last look that are not taken yet.
        refused: For each file of which no job could be made, why.
        looked_ms: The time of the last look.
        next_ms: When the next step is due.
        failures: Steps in a row that came to nothing.
        failing_since_ms: The time of the first of them.
        problem: The problem that stopped the last of them.
    """

    begins_anew = False  # that would leave new files alone for good
    source: str = ""
    existing: int = 0
    job: str = ""
    start_at_ms: int = 0
    waiting: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    looked_ms: int = 0
    next_ms: int = 0
    failures: int = 0
    failing_since_ms: int = 0
    problem: str = ""

    def line(self) -> str:
        """Return how the watch stands, in a few words."""
        if not self.looked_ms:
            return self.problem or "has not looked yet"
        parts = [f"{plural(self.waiting, 'file')} to be taken"]
        parts += [f"{self.existing:,} left alone at the first look"] if self.existing else []
        parts += [f"job {self.job} is under way"] if self.job else []
        return ", ".join(parts)


def steps_of(client: Redis, watch: str) -> StepStore[WatchState]:
    """Return the state and the lock of a watch."""
    return StepStore(client, keys.watch(watch), f"watch '{watch}'", WatchState)


def read_watch(client: Redis, watch: str) -> WatchState:
    """Return the state of a watch as it is now.

    Raises:
        FormatUnknown: It can't be read.
    """
    return steps_of(client, watch).peek()

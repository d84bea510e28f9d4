"""Rounds of the sweep: which partitions to wake, and whether anybody answers.

A lost Celery message must cost nothing, so a wake-up that nobody answers is sent again; but not
while the queue still holds as many messages as there are such wake-ups: they wait.
Where the queue is empty they were taken: by somebody who has yet to begin, or who found the gate
closed and went away. The second is usual where a limit is low, so that is not waited for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

AGAIN_SECONDS: Final = 3.0
"""The time after which an unanswered wake-up is sent again."""
TAKEN_SECONDS: Final = 0.9
"""The time after which an unanswered wake-up is sent again while the queue is empty."""


class WakeUp(NamedTuple):
    """A request for a drain.

    Attributes:
        queue: The kind of Celery's queue: `live` or `backfill`.
    """

    queue: str
    destination: str
    partition: int


@dataclass(frozen=True, slots=True)
class Sight:
    """A partition as the sweep found it.

    Args:
        due: True if there is work that may be done now, and nobody holds the lease.
        waking: True if it was woken already.
        held: True if somebody holds its lease.
    """

    call: WakeUp
    due: bool
    waking: bool
    held: bool

    @property
    def partition(self) -> tuple[str, int]:
        return self.call.destination, self.call.partition


@dataclass(slots=True)
class Rounds:
    """The memory of one sweeper from round to round.

    Args:
        woken_at_seconds: The time since which a partition has been woken by us, or seen woken, by
            partition.
        silent_since_seconds: The time since which we wake and nobody takes a lease; None =
            somebody does.
    """

    woken_at_seconds: dict[tuple[str, int], float] = field(default_factory=dict)
    silent_since_seconds: float | None = None

    def wake_for(self, sights: Sequence[Sight], *, queued: int, now_seconds: float) -> list[WakeUp]:
        """Return the partitions to wake in this round.

        Args:
            sights: The partitions whose gate is open, as they were found.
            queued: The number of messages that wait in the broker.
            now_seconds: The time by any clock that goes on steadily.
        """
        self._listen(sights, now_seconds)
        due = [sight for sight in sights if sight.due]
        fresh = [sight for sight in due if not sight.waking]
        patience_seconds = AGAIN_SECONDS if queued else TAKEN_SECONDS
        unanswered = [
            sight
            for sight in due
            if sight.waking and self._woken_for_seconds(sight, now_seconds) >= patience_seconds
        ]
        woken = fresh + (unanswered if queued < len(unanswered) else [])
        partitions = {sight.partition for sight in due}
        self.woken_at_seconds = {
            partition: at
            for partition, at in self.woken_at_seconds.items()
            if partition in partitions
        } | dict.fromkeys((sight.partition for sight in woken), now_seconds)
        return [sight.call for sight in woken]

    def silent_for_seconds(self, now_seconds: float) -> float:
        """Return for how long we have been waking without anybody taking a lease."""
        since = self.silent_since_seconds
        return 0.0 if since is None else now_seconds - since

    def _listen(self, sights: Sequence[Sight], now_seconds: float) -> None:
        known = [sight for sight in sights if sight.partition in self.woken_at_seconds]
        answered = any(sight.held or not sight.waking for sight in known)
        if answered or not any(sight.due for sight in known):
            self.silent_since_seconds = None
        elif self.silent_since_seconds is None:
            self.silent_since_seconds = now_seconds

    def _woken_for_seconds(self, sight: Sight, now_seconds: float) -> float:
        return now_seconds - self.woken_at_seconds.setdefault(sight.partition, now_seconds)

"""Watching what was sent until it is delivered, or is settled in another way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis import Redis

from ops.feeding.sending import Deadline
from ops.interrupts import Interruption
from ops.state.partitions import all_partitions
from ops.state.waiting import Choice, find_streams
from producer.publishing.published import Published
from worker.contract.processes import WORKER, read_processes
from worker.contract.redis.connection import redis_errors
from worker.contract.settings import Settings

_POLL_SECONDS: Final = 0.3
_TOLD_AGAIN_SECONDS: Final = 15.0


def waiting_of_job(client: Redis, settings: Settings, job: str) -> int:
    """Return how many deliveries of a job wait.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    places = all_partitions(client, settings)
    return sum(stream.length for stream in find_streams(client, places, Choice(job=job)))


def waiting_of(client: Redis, published: Published) -> int:
    """Return about how many of these deliveries wait; 0 if and only if none does.

    Others in their streams may be counted, as long as one of them is there.

    Raises:
        RedisUnavailable: Redis can't be asked.
    """
    with redis_errors():
        pipe = client.pipeline(transaction=False)
        for stream, ids in published.entries.items():
            pipe.xlen(stream)
            pipe.xrange(stream, ids.first, ids.last, count=1)
        answers = pipe.execute()
    looks = zip(answers[::2], answers[1::2], strict=True)
    waiting: int = sum(length for length, found in looks if found)
    return min(waiting, published.accepted)


@dataclass(frozen=True, slots=True)
class Awaited:
    """What somebody waits for.

    Args:
        waiting: How many deliveries still wait.
        client: To ask whether a worker runs.
        tell: Takes a line for the person who waits.
    """

    waiting: Callable[[], int]
    client: Redis
    deadline: Deadline
    interruption: Interruption
    tell: Callable[[str], None]

    def until_settled(self, left: int, advance: Callable[[int], None]) -> bool:
        """Look until nothing waits; return False where that takes too long.

        Args:
            left: How many waited a moment ago.
            advance: Takes how many were settled since the last look.

        Raises:
            RedisUnavailable: Redis can't be asked.
            KeyboardInterrupt, SystemExit: It was interrupted.
        """
        told_at = time.monotonic() - _TOLD_AGAIN_SECONDS
        while left:
            if self._ends(left):
                return False
            if time.monotonic() - told_at >= _TOLD_AGAIN_SECONDS:
                told_at = time.monotonic()
                self._say_if_no_worker_runs()
            time.sleep(_POLL_SECONDS)
            before, left = left, min(left, self.waiting())
            advance(before - left)
        return True

    def _ends(self, left: int) -> bool:
        if self.interruption.is_requested:
            self.tell(f"Interrupted. {left:,} deliveries still wait; they stay in Redis.")
            self.interruption.obey()
        if not self.deadline.passed():
            return False
        self.tell(
            f"{left:,} deliveries still wait, and --timeout has passed. `segrelay status` tells "
            "what they wait for; they stay in Redis."
        )
        return True

    def _say_if_no_worker_runs(self) -> None:
        if not any(process.kind == WORKER for process in read_processes(self.client)):
            self.tell(
                "No worker runs, so nothing is delivered now: start one with `segrelay up` or "
                "`segrelay worker`."
            )

"""The judgement of health that `status`, its `--check` and `/readyz` show."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

from ops.status.health.facts import Facts, read_facts
from ops.status.health.problem import ILL, HealthProblem
from ops.status.health.rules import deliveries, intake, machines, progress
from worker.contract.settings import Settings
from worker.errors import RedisUnavailable

UNREACHABLE: Final = "redis_unreachable"
_JUDGED_AGAIN_SECONDS: Final = 5.0

RULES: Final[tuple[Callable[[Facts], Iterable[HealthProblem]], ...]] = (
    machines.emptied,
    machines.memory,
    machines.durability,
    machines.workers,
    machines.too_few_workers,
    machines.companions,
    machines.partitions,
    machines.clocks,
    machines.messages,
    deliveries.destinations,
    deliveries.triggers,
    deliveries.templates,
    deliveries.template_files,
    deliveries.orphans,
    deliveries.live_late,
    progress.standing_still,
    progress.slow_answers,
    progress.dead_letters,
    progress.quarantine,
    progress.stopped_renamings,
    progress.unfinished_acts,
    progress.aborted_jobs,
    progress.not_renamed,
    progress.renaming_waits,
    intake.receivers,
    intake.refusals,
    intake.silence,
    intake.syncs,
    intake.jobs,
)


def problems_of(facts: Facts) -> list[HealthProblem]:
    """Return all problems, the ill ones first."""
    found = [problem for rule in RULES for problem in rule(facts)]
    return sorted(found, key=lambda problem: problem.severity != ILL)


def read_judged(client: Redis, settings: Settings) -> dict[str, Any]:
    """Return the document of `segrelay status`, with its problems."""
    facts = read_facts(client, settings)
    return {**facts.status, "problems": [one.document() for one in problems_of(facts)]}


@dataclass(slots=True)
class ProblemNames:
    """Names the ill problems for `/readyz`, judged anew every few seconds at most.

    Args:
        client: A connection of its own, with short timeouts.
    """

    client: Redis
    settings: Settings
    _names: Sequence[str] = ()
    _next_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> Sequence[str]:
        """Return the names of the ill problems."""
        with self._lock:
            if time.monotonic() >= self._next_at:
                self._names = self._judged()
                self._next_at = time.monotonic() + _JUDGED_AGAIN_SECONDS
            return self._names

    def _judged(self) -> Sequence[str]:
        try:
            found = problems_of(read_facts(self.client, self.settings))
        except RedisUnavailable:
            return (UNREACHABLE,)
        return sorted({problem.name for problem in found if problem.severity == ILL})

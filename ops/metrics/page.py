"""The page of metrics, read from Redis at each scrape: it equals the status at that moment."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from redis import Redis

from ops.letters.reading import Cause, count_causes
from ops.metrics import deliveries, machines, requests, sources
from ops.metrics.text import text_of
from ops.state.partitions import all_partitions
from ops.status.health.facts import Facts
from ops.status.health.judgement import UNREACHABLE, problems_of
from ops.status.health.problem import ILL, HealthProblem
from ops.status.health.reader import read_facts
from worker.contract.settings import Settings
from worker.errors import RedisUnavailable


def families_of(facts: Facts, causes: list[Cause]) -> Iterator[Metric]:
    """Yield all metrics."""
    yield machines.up(is_up=True)
    yield machines.problems(problems_of(facts))
    for family in (
        deliveries.outcomes,
        deliveries.waiting,
        deliveries.times,
        deliveries.left_out,
        deliveries.renamed_people,
        requests.answers,
        requests.rates,
        requests.states,
        sources.receivers,
        sources.jobs,
        sources.syncs,
        machines.workers,
        machines.redis,
    ):
        yield from family(facts)
    yield from deliveries.letters(facts, causes)


@dataclass(slots=True)
class MetricsPage:
    """Reads and writes the page.

    Args:
        client: Of its own, with short timeouts.
    """

    client: Redis
    settings: Settings
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self) -> bytes:
        """Return the page; of a Redis that can't be asked it says only that."""
        with self._lock:
            try:
                families = self._read()
            except RedisUnavailable as error:
                found = HealthProblem(UNREACHABLE, ILL, "", error.message, "segrelay redis status")
                families = [machines.up(is_up=False), machines.problems([found])]
        return text_of(families)

    def _read(self) -> Iterable[Metric]:
        places = all_partitions(self.client, self.settings)
        facts = read_facts(self.client, self.settings, places)
        return families_of(facts, count_causes(self.client, places))

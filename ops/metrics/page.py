"""The page of metrics, read from Redis at each scrape: it equals the status at that moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import Metric
from redis import Redis

from ops.letters.reading import Cause, count_causes
from ops.metrics import deliveries, sources
from ops.metrics.families import RowFamily, gauge, number, text_of
from ops.state.partitions import all_partitions
from ops.status.health.facts import Facts, read_facts
from ops.status.health.judgement import UNREACHABLE, problems_of
from ops.status.health.problem import ILL, HealthProblem
from worker.contract.processes.workers import WORKER
from worker.contract.settings import Settings
from worker.errors import RedisUnavailable


def up(*, is_up: bool) -> Metric:
    """Return the metric that is 1 if Redis could be asked."""
    return number("segrelay_up", "1 if Redis could be asked.", float(is_up))


def count_problems(found: Sequence[HealthProblem]) -> RowFamily:
    """Return the number of problems of each name and severity."""
    counts = Counter((one.name, one.severity) for one in found)
    return gauge(
        "segrelay_problems",
        "What is wrong: the subjects of each problem that `segrelay status` names.",
        ("name", "severity"),
        sorted(counts.items()),
    )


def workers(facts: Facts) -> Iterator[Metric]:
    """Yield the number of workers, and of records that wait for response streams."""
    processes = [one for one in facts.status["processes"] if one["kind"] == WORKER]
    yield number("segrelay_workers", "Workers that were seen lately.", len(processes))
    yield number(
        "segrelay_responses_waiting",
        "Records that wait for response streams.",
        facts.status["responses"]["waiting"],
    )


def redis(facts: Facts) -> Iterator[Metric]:
    """Yield the memory that Redis uses, and whether it is durable."""
    found = facts.redis
    numbers = {
        "memory_used_bytes": ("Memory that Redis uses.", found.used),
        "memory_max_bytes": ("Redis' maxmemory; 0 = it has none.", found.most),
        "keys": (
            "Keys in Redis; nearly all are ledgers, one for each profile of a destination.",
            found.keys,
        ),
        "full": ("1 if Redis takes no more events.", bool(found.full)),
        "durable": ("1 if Redis is as durable as promised.", not found.weak),
        "disk_writable": ("1 if Redis can write to its disk.", not found.failing),
        "emptied": ("How often Redis came back empty, and nobody has acknowledged it.",
                    len(found.losses)),
    }  # fmt: skip
    for name, (meaning, value) in numbers.items():
        yield number(f"segrelay_redis_{name}", meaning, float(value))


def families_of(facts: Facts, causes: list[Cause]) -> Iterator[Metric]:
    """Yield all metrics of the page, with their numbers."""
    yield up(is_up=True)
    yield count_problems(problems_of(facts))
    for family in (
        deliveries.outcomes,
        deliveries.waiting,
        deliveries.times,
        deliveries.left_out,
        deliveries.renamed_people,
        deliveries.answers,
        deliveries.rates,
        deliveries.states,
        sources.receivers,
        sources.jobs,
        sources.syncs,
        workers,
        redis,
    ):
        yield from family(facts)
    yield from deliveries.letters(facts, causes)


@dataclass(slots=True)
class MetricsPage:
    """The page of metrics, made anew from Redis at each scrape.

    Args:
        client: Of its own, with short timeouts.
    """

    client: Redis
    settings: Settings
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self) -> bytes:
        """Return the page; if Redis can't be reached, the page says only that."""
        with self._lock:
            try:
                families = self._read()
            except RedisUnavailable as error:
                found = HealthProblem(UNREACHABLE, ILL, "", error.message, "segrelay redis status")
                families = [up(is_up=False), count_problems([found])]
        return text_of(families)

    def _read(self) -> Iterable[Metric]:
        places = all_partitions(self.client, self.settings)
        facts = read_facts(self.client, self.settings, places)
        return families_of(facts, count_causes(self.client, places))

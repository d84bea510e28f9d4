"""Metrics of workers and Redis, and the problems by which health is judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client import Metric

from ops.metrics.families import RowFamily, gauge
from ops.status.health.facts import Facts
from ops.status.health.problem import HealthProblem
from worker.contract.processes.workers import WORKER


def up(*, is_up: bool) -> Metric:
    """Return whether Redis could be asked."""
    return gauge("segrelay_up", "1 if Redis could be asked.", (), [((), float(is_up))])


def problems(found: Sequence[HealthProblem]) -> RowFamily:
    """Return how many problems there are of each name and severity."""
    counts = Counter((one.name, one.severity) for one in found)
    return gauge(
        "segrelay_problems",
        "What is wrong: the subjects of each problem that `segrelay status` names.",
        ("name", "severity"),
        sorted(counts.items()),
    )


def workers(facts: Facts) -> Iterator[Metric]:
    """Yield how many workers run."""
    processes = [one for one in facts.status["processes"] if one["kind"] == WORKER]
    yield gauge("segrelay_workers", "Workers that were seen lately.", (), [((), len(processes))])
    yield gauge(
        "segrelay_responses_waiting",
        "Records that wait for response streams.",
        (),
        [((), facts.status["responses"]["waiting"])],
    )


def redis(facts: Facts) -> Iterator[Metric]:
    """Yield how much memory Redis uses, and whether it keeps what it is given."""
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
    for name, (meaning, number) in numbers.items():
        yield gauge(f"segrelay_redis_{name}", meaning, (), [((), float(number))])

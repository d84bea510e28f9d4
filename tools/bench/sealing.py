"""The cost of sealed data: the same events are published and drained, open and sealed, in one run.

One process publishes and drains. Each way has a Redis of its own, since a Redis
stays as it began, and the process turns to the other one between the drains.
"""

from __future__ import annotations

import gc
import statistics
import time
from contextlib import ExitStack, closing
from random import Random
from typing import Any, Final

from segrelay.ops.demo.rig import Rig
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.sandbox.people import happenings, payloads
from segrelay.worker.batch.send import Stop
from segrelay.worker.contract.protection import PROTECTION
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.node.runtime import Runtime, runtime_for
from tools.bench.rigs import bench_rig, redis_seconds

_ROUNDS: Final = 12
_PEOPLE: Final = 1_000_000
MODES: Final[dict[str, str]] = {
    "open": "",
    "sealed": f'[protection]\nkey = "{"A" * 43}="\n',
}
"""The tables of the configuration of each Redis."""


def drain_sealed(*, events: int) -> dict[str, Any]:
    """Measure publishing and draining, sealed and open, in an order that alternates.

    Args:
        events: Number of events of each drain.
    """
    chance = Random(1)  # noqa: S311 - invented people
    found: dict[str, list[dict[str, float]]] = {name: [] for name in MODES}
    names = list(MODES)
    with ExitStack() as stack:
        rigs = {name: stack.enter_context(bench_rig(more=more)) for name, more in MODES.items()}
        runtimes = {}
        for name, rig in rigs.items():
            PROTECTION.off()
            claim(rig.client, rig.settings)
            runtimes[name] = stack.enter_context(closing(runtime_for(rig.settings)))
        for number in range(-1, _ROUNDS):
            for name in names[:: 1 if number % 2 else -1]:
                rig = rigs[name]
                claim(rig.client, rig.settings)
                publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
                publisher.publish([])
                made = list(payloads(happenings(chance, events=events, people=_PEOPLE)))
                begun = time.process_time()
                publisher.publish(made)
                publishing = 1e6 * (time.process_time() - begun) / events
                measured = drained(rig, runtimes[name], events) | {"publishing_us": publishing}
                if number >= 0:  # the first round warms up
                    found[name].append(measured)
    PROTECTION.off()
    return {name: summary(rounds, found["open"]) for name, rounds in found.items()}


def drained(rig: Rig, runtime: Runtime, events: int) -> dict[str, float]:
    """Drain all partitions, and return what an event took, in µs.

    Args:
        rig: Holds the events.
        runtime: The runtime of the rig's configuration.
        events: Their number.
    """
    gc.collect()
    begun, ours, redis = time.perf_counter(), time.process_time(), redis_seconds(rig.client)
    while rig.waiting():
        for partition in rig.partitions():
            runtime.drain(partition.destination, partition.number, Stop())
    return {
        "wall_us": 1e6 * (time.perf_counter() - begun) / events,
        "process_us": 1e6 * (time.process_time() - ours) / events,
        "redis_us": 1e6 * (redis_seconds(rig.client) - redis) / events,
    }


def summary(rounds: list[dict[str, float]], plain: list[dict[str, float]]) -> dict[str, Any]:
    """Return the medians, and those of the ratios to the plain drain of the same round."""
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    ratios = {
        name: statistics.median(
            one[name] / other[name] for one, other in zip(rounds, plain, strict=True)
        )
        for name in ("wall_us", "process_us", "redis_us")
    }
    least = {name: min(one[name] for one in rounds) for name in rounds[0]}
    return {
        **{name: round(value, 2) for name, value in medians.items()},
        "events_per_second": round(1e6 / medians["wall_us"]),
        "least": {name: round(value, 1) for name, value in least.items()},
        "ratio_to_plain": {name: round(value, 3) for name, value in ratios.items()},
    }

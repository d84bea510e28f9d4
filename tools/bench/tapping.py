"""The cost of `segrelay tap` for a drain: the same drains with nobody and with watches, in one run.

One process drains, so that a percent can be told from the noise of others: besides the wall clock,
it counts its own processor time and that of Redis.
"""

from __future__ import annotations

import gc
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from random import Random
from typing import Any, Final

from segrelay.ops.demo.rig import Rig
from segrelay.ops.terminal.moments import awaited
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.sandbox.people import happenings, payloads
from segrelay.worker.batch.send import Stop
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.node.runtime import Runtime, runtime_for
from tools.bench.rigs import bench_rig, redis_seconds

_ROUNDS: Final = 8
_PEOPLE: Final = 1_000_000
_BEGIN_SECONDS: Final = 30.0
WATCHES: Final[dict[str, tuple[str, ...] | None]] = {
    "nobody": None,
    "everything": (),
    "one_person": ("--person", digest_of("email:nobody@example.com").hex()),
    "one_outcome": ("--outcome", "dead"),
    "a_text": ("--text", "not there"),
    "a_text_revealed": ("--text", "not there", "--reveal"),
}


def drain_watched(*, events: int) -> dict[str, Any]:
    """Measure drains with each kind of watch, one after the other, in an order that rotates.

    Args:
        events: Number of events of each drain.
    """
    chance = Random(1)  # noqa: S311 - invented people
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WATCHES}
    names = list(WATCHES)
    with bench_rig() as rig, closing(runtime_for(rig.settings)) as runtime:
        publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
        for number in range(-1, _ROUNDS):
            turn = number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                happened = happenings(chance, events=events, people=_PEOPLE)
                publisher.publish(list(payloads(happened)))
                with _watching(rig, WATCHES[name]):
                    measured = drained(rig, runtime, events)
                if number >= 0:  # the first round warms up
                    found[name].append(measured)
    return {name: summary(rounds, found["nobody"]) for name, rounds in found.items()}


@contextmanager
def _watching(rig: Rig, options: tuple[str, ...] | None) -> Iterator[None]:
    if options is None:
        yield
        return
    process = rig.start_beside("tap", "--for", "10m", "--json", *options)
    awaited(lambda: bool(rig.client.exists(keys.TAPS)), _BEGIN_SECONDS)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_BEGIN_SECONDS)


def drained(rig: Rig, runtime: Runtime, events: int) -> dict[str, float]:
    """Drain all partitions, and return what an event took, in µs."""
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
        for name in rounds[0]
    }
    least = {name: min(one[name] for one in rounds) for name in rounds[0]}
    return {
        **{name: round(value, 1) for name, value in medians.items()},
        "events_per_second": round(1e6 / medians["wall_us"]),
        "least": {name: round(value, 1) for name, value in least.items()},
        "ratio_to_plain": {name: round(value, 3) for name, value in ratios.items()},
    }

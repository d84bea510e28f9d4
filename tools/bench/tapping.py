"""The cost of `segrelay tap` for a drain: the same drains with nobody and with watches, in one run.

One process drains: besides the wall clock, it counts its own processor time and that of Redis. Two
drains with nobody differ by more than a percent all the same, so it also counts the processor time
of all that is done for watches alone: choosing, making, masking, sealing and packing records.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import wraps
from random import Random
from typing import Any, Final

from segrelay.ops.demo.rig import Rig
from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.sandbox.people import happenings, payloads
from segrelay.worker.batch.send import Stop
from segrelay.worker.batch.tap import DrainTap
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.redis import taps
from segrelay.worker.contract.redis.taps import TapWatch
from segrelay.worker.contract.taps import TapFilter, Taps
from segrelay.worker.node.runtime import Runtime, runtime_for
from tools.bench.rigs import bench_rig, redis_seconds

_ROUNDS: Final = 6
_PEOPLE: Final = 1_000_000
_RENEWED_SECONDS: Final = 5.0
_BEFORE_IT_COUNTS: Final = 1_000
"""Events that are drained first: a watch begins with more records than it gets from then on."""
WATCHES: Final[dict[str, TapFilter | None]] = {
    "nobody": None,
    "nobody_again": None,
    "everything": TapFilter(),
    "one_person": TapFilter(people=frozenset([digest_of("email:nobody@example.com")])),
    "one_outcome": TapFilter(outcome="dead"),
    "a_text": TapFilter(containing="not there"),
    "a_text_revealed": TapFilter(containing="not there", reveal=True),
}
"""The watch of each drain; the second drain without one shows how much is chance."""


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

        def publish(count: int) -> None:
            publisher.publish(list(payloads(happenings(chance, events=count, people=_PEOPLE))))

        for number in range(-1, _ROUNDS):
            turn = number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                wanted = WATCHES[name]
                watch = TapWatch(rig.client, wanted, "bench") if wanted else None
                publish(_BEFORE_IT_COUNTS)
                drained(rig, runtime, _BEFORE_IT_COUNTS, watch)
                publish(events)
                measured = drained(rig, runtime, events, watch)
                if watch:
                    watch.end()
                if number >= 0:  # the first round warms up
                    found[name].append(measured)
    return {name: summary(rounds, found["nobody"]) for name, rounds in found.items()}


_DONE_FOR_WATCHES: Final = (
    *((DrainTap, name) for name in ("rendered", "sent", "answered", "ended", "retried")),
    *((Taps, name) for name in ("learn", "take")),
    (taps, "_offer_call"),
)
"""All that a drain does for watches, but for the wait for Redis."""


@contextmanager
def counted() -> Iterator[Callable[[], float]]:
    """Count the processor time (s) of everything for watches; yields a function with the sum."""
    total = 0.0

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            nonlocal total
            begun = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                total += time.thread_time() - begun

        return called

    with ExitStack() as counted_again:
        for owner, name in _DONE_FOR_WATCHES:
            plain = getattr(owner, name)
            counted_again.callback(setattr, owner, name, plain)
            setattr(owner, name, counting(plain))
        yield lambda: total


def drained(
    rig: Rig, runtime: Runtime, events: int, watch: TapWatch | None = None
) -> dict[str, float]:
    """Drain all partitions, and return what an event took, in µs.

    Args:
        rig: Holds the events.
        runtime: Of the rig's configuration.
        events: Their number.
        watch: The watch of somebody who looks meanwhile; None = nobody does.
    """
    renewed = 0.0
    gc.collect()
    begun, ours, redis = time.perf_counter(), time.process_time(), redis_seconds(rig.client)
    with counted() as for_watches:
        while rig.waiting():
            for partition in rig.partitions():
                if watch and time.perf_counter() > renewed + _RENEWED_SECONDS:
                    watch.look()
                    renewed = time.perf_counter()
                runtime.drain(partition.destination, partition.number, Stop())
    return {
        "for_watches_us": 1e6 * for_watches() / events,
        "wall_us": 1e6 * (time.perf_counter() - begun) / events,
        "process_us": 1e6 * (time.process_time() - ours) / events,
        "redis_us": 1e6 * (redis_seconds(rig.client) - redis) / events,
    }


def summary(rounds: list[dict[str, float]], plain: list[dict[str, float]]) -> dict[str, Any]:
    """Return the medians, and those of the ratios to the plain drain of the same round."""
    share = statistics.median(one["for_watches_us"] / one["process_us"] for one in rounds)
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
        "for_watches_share": round(share, 4),
        "events_per_second": round(1e6 / medians["wall_us"]),
        "least": {name: round(value, 1) for name, value in least.items()},
        "ratio_to_plain": {name: round(value, 3) for name, value in ratios.items()},
    }

"""From accepting a live event to its delivery: `python -m ops.bench.latency --events 300`.

One event at a time, first with nothing else to do, then while a backfill keeps every process busy.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from ops.invented import happenings, payloads
from ops.rig import Rig
from ops.terminal.console import print_json
from producer.publish import Publisher
from producer.sources.files import batches
from producer.sources.reading import read_payloads
from worker.contract.words import BACKFILL
from worker.errors import SegrelayError

_LOOK_SECONDS: Final = 0.001
_MOST_SECONDS: Final = 30.0
_SLOWEST_SHOWN: Final = 5


def measure(events: int, backfill: int, *, pause_seconds: float, seed: int) -> dict[str, Any]:
    """Return how long live events take, alone and beside a backfill of so many events."""
    rng = random.Random(seed)  # noqa: S311 - invented people
    people = 10 * (events + backfill)
    live = list(payloads(happenings(rng, events=2 * events, people=people)))
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
        Rig(Path(folder), exit_events=False) as rig,
    ):
        rig.start_worker()
        rig.wait_until_ready()
        publisher = Publisher(rig.client, rig.settings)

        def publish(payload: bytes) -> None:
            publisher.publish([payload])

        time.sleep(2 * pause_seconds)
        idle = latencies(rig, publish, live[:events], pause_seconds)
        if not backfill:
            return {"idle": summary(idle)}
        source = Path(folder) / "backfill.ndjson"
        rows = payloads(happenings(rng, events=backfill, people=people))
        source.write_bytes(b"\n".join(rows) + b"\n")
        with source.open("rb") as opened:
            for batch in batches(read_payloads(opened)):
                publisher.publish(batch, lane=BACKFILL)
        busy = latencies(rig, publish, live[events:], pause_seconds, while_waiting=True)
    return {"idle": summary(idle), "beside_a_backfill": summary(busy)}


def latencies(
    rig: Rig,
    bring: Callable[[bytes], None],
    events: Iterable[bytes],
    pause_seconds: float,
    *,
    while_waiting: bool = False,
) -> list[float]:
    """Return how long each event takes from before it is brought in until it is settled.

    Args:
        rig: With a worker that is ready.
        bring: Brings a payload in.
        events: One at a time.
        pause_seconds: Between two of them.
        while_waiting: Stop where nothing else waits any more.
    """
    found: list[float] = []
    for payload in events:
        if while_waiting and not rig.waiting():
            break
        begun = time.perf_counter()
        bring(payload)
        _wait_until_settled(rig)
        found.append(time.perf_counter() - begun)
        time.sleep(pause_seconds)
    return found


def _wait_until_settled(rig: Rig) -> None:
    """Wait until no live delivery waits."""
    end = time.perf_counter() + _MOST_SECONDS
    while _live_streams(rig):
        if time.perf_counter() > end:
            raise SegrelayError(f"A live event was not delivered within {_MOST_SECONDS:.0f} s.")
        time.sleep(_LOOK_SECONDS)


def _live_streams(rig: Rig) -> bool:
    pipe = rig.client.pipeline(transaction=False)
    for keys in rig.partitions():
        pipe.smismember(keys.streams, ["live|enter", "live|exit"])
    return any(any(found) for found in pipe.execute())


def summary(seconds: list[float]) -> dict[str, Any]:
    """Return percentiles, and the slowest."""
    ordered = sorted(seconds)
    percentiles = statistics.quantiles(ordered, n=100, method="inclusive")
    slowest = sorted(range(len(seconds)), key=lambda number: -seconds[number])[:_SLOWEST_SHOWN]
    return {
        "events": len(seconds),
        "p50_ms": round(1000 * percentiles[49], 1),
        "p90_ms": round(1000 * percentiles[89], 1),
        "p99_ms": round(1000 * percentiles[98], 1),
        "most_ms": round(1000 * ordered[-1], 1),
        "slowest": {f"event {number}": round(1000 * seconds[number], 1) for number in slowest},
    }


def main() -> None:
    """Measure, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--backfill", type=int, default=100_000, help="0 = only idle")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between events")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    report = measure(asked.events, asked.backfill, pause_seconds=asked.pause, seed=asked.seed)
    print_json(report)


if __name__ == "__main__":
    main()

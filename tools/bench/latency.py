"""Benchmarks of single live events: how long each takes until it is delivered."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

import httpx

from segrelay.ops.demo.rig import Rig, wait_for_receiver
from segrelay.ops.embedded.lifecycle import free_port
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.producer.sources.files import batches
from segrelay.producer.sources.reading import read_payloads
from segrelay.sandbox.people import happenings, payloads
from segrelay.worker.contract.words import BACKFILL
from segrelay.worker.errors import SegrelayError
from tools.bench.backfill import write_rows
from tools.bench.frame.rigs import bench_rig, wait_until
from tools.bench.receiver import RECEIVER, SECRET

_LOOK_SECONDS: Final = 0.001
_MOST_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.05
_QUIET_SECONDS: Final = 1.0
"""Seconds between the start of a worker and the first event."""
_SLOWEST_SHOWN: Final = 5
_BACKFILL: Final = ("--audience", "vip", "--as-of", "2026-11-01T00:00:00Z", "--older-than-ledger")


def live_events(events: int = 200, backfill: int = 100_000) -> dict[str, Any]:
    """Measure the time from accepting a live event to its delivery, idle and beside a backfill.

    Args:
        events: Live events in each of both parts, one at a time.
        backfill: Events of the backfill, which are accepted before the second part.
    """
    chance = Random(1)  # noqa: S311 - invented people
    people = 10 * (events + backfill)
    live = list(payloads(happenings(chance, events=2 * events, people=people)))
    with bench_rig() as rig:
        rig.start_worker()
        rig.wait_until_ready()
        publisher = Publisher(rig.client, rig.settings)

        def publish(payload: bytes) -> None:
            publisher.publish([payload])

        time.sleep(_QUIET_SECONDS)
        idle = _latencies(rig, publish, live[:events])
        source = rig.folder / "backfill.ndjson"
        rows = payloads(happenings(chance, events=backfill, people=people))
        source.write_bytes(b"\n".join(rows) + b"\n")
        with source.open("rb") as opened:
            for batch in batches(read_payloads(opened)):
                publisher.publish(batch, PublishOptions(BACKFILL))
        busy = _latencies(rig, publish, live[events:], while_waiting=True)
    return {"idle": _summary(idle), "beside_a_backfill": _summary(busy)}


def live_requests(events: int = 300, rows: int = 1_000_000) -> dict[str, Any]:
    """Measure the time from a request to the receiver until Insider's answer is settled.

    Args:
        events: Requests with one event in each of both parts: idle, and beside a backfill.
        rows: Rows of the file that `segrelay backfill` reads in the second part.
    """
    chance = Random(2)  # noqa: S311 - invented people
    live = list(payloads(happenings(chance, events=2 * events, people=100 * events)))
    port = free_port()
    with (
        bench_rig(more=RECEIVER.format(port=port, secret=SECRET)) as rig,
        httpx.Client(headers={"X-Segrelay-Secret": SECRET}) as client,
    ):
        rig.start_worker()
        wait_for_receiver(port, rig.start_beside("serve"))
        rig.wait_until_ready()

        def post(payload: bytes) -> None:
            client.post(f"http://127.0.0.1:{port}/v1/lytics", content=payload).raise_for_status()

        time.sleep(_QUIET_SECONDS)
        idle = _latencies(rig, post, live[:events])
        source = rig.folder / "rows.ndjson"
        write_rows(source, rows)
        rig.start_beside("backfill", "start", str(source), *_BACKFILL)
        wait_until(rig.waiting, _MOST_SECONDS, "The backfill does not start.")
        busy = _latencies(rig, post, live[events:], while_waiting=True)
        return {
            "idle": _summary(idle),
            "beside_a_backfill": {"left_to_deliver": rig.waiting(), **_summary(busy)},
        }


def _latencies(
    rig: Rig,
    accept: Callable[[bytes], None],
    events: Iterable[bytes],
    *,
    while_waiting: bool = False,
) -> list[float]:
    """Return the seconds from handing over each event until its deliveries are settled.

    Args:
        rig: A rig with a worker that is ready.
        accept: Hands one event to segrelay.
        events: Handed over one at a time, with a pause after each.
        while_waiting: Stop when nothing else waits any more.
    """
    found: list[float] = []
    for payload in events:
        if while_waiting and not rig.waiting():
            break
        begun = time.perf_counter()
        accept(payload)
        _wait_until_settled(rig)
        found.append(time.perf_counter() - begun)
        time.sleep(_PAUSE_SECONDS)
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


def _summary(seconds: list[float]) -> dict[str, Any]:
    """Return percentiles of the latencies, and the slowest events."""
    if len(seconds) < 2:  # noqa: PLR2004 - quantiles need two
        raise SegrelayError("The backfill ended before two live events were measured.")
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    slowest = sorted(range(len(seconds)), key=lambda number: -seconds[number])[:_SLOWEST_SHOWN]
    return {
        "events": len(seconds),
        "p50_ms": round(1000 * percentiles[49], 1),
        "p90_ms": round(1000 * percentiles[89], 1),
        "p99_ms": round(1000 * percentiles[98], 1),
        "most_ms": round(1000 * max(seconds), 1),
        "slowest": {f"event {number}": round(1000 * seconds[number], 1) for number in slowest},
    }

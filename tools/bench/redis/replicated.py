"""A benchmark of `redis.replicas`: the cost of waiting until replicas have confirmed a write."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import httpx

from segrelay.ops.demo.rig import Rig, wait_for_receiver
from segrelay.ops.embedded import lifecycle
from segrelay.ops.embedded.lifecycle import free_port
from segrelay.ops.embedded.topologies import LocalCluster, Sentinels
from segrelay.sandbox.people import happenings, payloads
from tools.bench.draining import accepted_and_drained
from tools.bench.frame.rigs import bench_rig
from tools.bench.receiver import RECEIVER, SECRET

Servers = Literal["sentinel", "cluster"]
_PEOPLE: Final = 1_000_000
_REQUESTS: Final = 300
_PAUSE_SECONDS: Final = 0.02


def deliver_replicated(*, events: int, servers: Servers, replicas: int) -> dict[str, Any]:
    """Measure the rates of accepting and of draining, and how long a webhook waits for its answer.

    Args:
        events: Number of events that are accepted first, and drained afterwards.
        servers: A master with two replicas behind Sentinels, or three masters with a replica each.
        replicas: Number of replicas that have to confirm a write; the servers are the same with 0.
    """
    chance = Random(1)  # noqa: S311 - invented people
    happened = happenings(chance, events=events, people=_PEOPLE)
    alone = list(payloads(happenings(chance, events=_REQUESTS, people=_PEOPLE)))
    port = free_port()
    with _rig(servers, replicas, port) as rig:
        found = accepted_and_drained(rig, happened, payloads(happened))
        answers = sorted(_answers(rig, port, alone))
    return found | {
        "answer": {
            "p50_ms": round(1_000 * statistics.median(answers), 2),
            "p99_ms": round(1_000 * statistics.quantiles(answers, n=100)[98], 2),
        }
    }


def _answers(rig: Rig, port: int, bodies: list[bytes]) -> Iterator[float]:
    """Post webhooks one after the other, and yield the seconds until each is answered."""
    wait_for_receiver(port, rig.start_beside("serve"))
    with httpx.Client(headers={"X-Segrelay-Secret": SECRET}) as client:
        for body in bodies:
            begun = time.perf_counter()
            client.post(f"http://127.0.0.1:{port}/v1/lytics", content=body).raise_for_status()
            yield time.perf_counter() - begun
            time.sleep(_PAUSE_SECONDS)


@contextmanager
def _rig(servers: Servers, replicas: int, port: int) -> Iterator[Rig]:
    lines = f"replicas = {replicas}"
    options = {"more": RECEIVER.format(port=port, secret=SECRET)}
    with tempfile.TemporaryDirectory(prefix="segrelay-bench-") as name:
        folder = Path(name)
        if servers == "sentinel":
            with (
                Sentinels(folder) as sentinels,
                bench_rig(redis_url=sentinels.url, redis_lines=lines, **options) as rig,
            ):
                yield rig
            return
        broker = folder / "broker"
        try:
            lines += f'\nbroker_url = "{lifecycle.ensure_running(broker).url}"'
            with (
                LocalCluster(folder) as cluster,
                bench_rig(redis_url=cluster.url, redis_lines=lines, **options) as rig,
            ):
                yield rig
        finally:
            lifecycle.stop(broker)

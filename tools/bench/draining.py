"""Benchmarks of delivery: events a second that reach Insider.

The sender, Redis with `appendfsync always`, the workers, and the sandbox that checks and keeps
every user share the cores of this machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import httpx

from segrelay.ops.demo.rig import Rig, trigger_pairs, wait_for_receiver
from segrelay.ops.embedded import lifecycle
from segrelay.ops.embedded.lifecycle import free_port
from segrelay.ops.embedded.topologies import LocalCluster, Sentinels
from segrelay.sandbox.people import AUDIENCES, Happening, happenings, payloads, truth
from segrelay.worker.errors import OperationsMustAct
from tools.bench.intake import RECEIVER, SECRET
from tools.bench.rigs import audiences_of, bench_rig, requests_of, send, used_memory

_MOST_SECONDS: Final = 600.0


def drain(
    *,
    events: int,
    people: int = 1_000_000,
    triggers: int = 0,
    audiences: int = 0,
    exit_events: bool = False,
    profile_bytes: int = 1_000,
    fields: int = 0,
    partitions: int = 16,
    while_draining: bool = False,
) -> dict[str, Any]:
    """Measure how fast events of invented people are accepted and drained.

    Args:
        events: Number of events.
        people: Number of people, among whom the events are spread.
        triggers: Number of triggers over which the events are spread evenly; 0 for the rig's own.
        audiences: Number of audiences over which they are spread; 0 for one for each pair of
            triggers, or the rig's own.
        exit_events: A third trigger makes two deliveries of an exit.
        profile_bytes: Size of a profile.
        fields: Least number of fields of a profile.
        partitions: Of the destination.
        while_draining: Start the worker first; otherwise it starts when all events are accepted.
    """
    slugs = audiences_of(2 * audiences or triggers) or AUDIENCES
    chance = Random(1)  # noqa: S311 - invented people
    happened = happenings(chance, events=events, people=people, audiences=slugs)
    with bench_rig(
        exit_events=exit_events,
        redis_lines=f"partitions = {partitions}",
        more=trigger_pairs(slugs, triggers // 2) if triggers else "",
    ) as rig:
        rows = payloads(happened, profile_bytes=profile_bytes, fields=fields)
        return accepted_and_drained(rig, happened, rows, while_draining=while_draining)


def accepted_and_drained(
    rig: Rig, happened: list[Happening], rows: Iterable[bytes], *, while_draining: bool = False
) -> dict[str, Any]:
    """Accept and drain events, check the memberships in the sandbox, and return the rates."""
    if while_draining:
        _start_worker(rig)
    empty_bytes = used_memory(rig.client)
    accepted_seconds = send(rig, rows)
    redis_bytes = used_memory(rig.client) - empty_bytes
    seconds = accepted_seconds if while_draining else 0.0
    if not while_draining:
        _start_worker(rig)
    begun = time.monotonic()
    rig.wait_until_empty(_MOST_SECONDS)
    seconds += time.monotonic() - begun
    counts = rig.counts().items()
    deliveries = sum(number for name, number in counts if name.startswith("accepted|"))
    if rig.memberships() != truth(happened):
        raise OperationsMustAct("Memberships in the sandbox differ from what the events say.")
    return {
        "events": len(happened),
        "accepted_per_second": round(len(happened) / accepted_seconds),
        "seconds": round(seconds, 2),
        "events_per_second": round(len(happened) / seconds),
        "deliveries_per_second": round(deliveries / seconds),
        "redis_bytes_per_event": round(redis_bytes / len(happened)),
        "requests_per_1000_events": round(1000 * requests_of(rig) / len(happened), 2),
    }


def _start_worker(rig: Rig) -> None:
    rig.start_worker()
    rig.wait_until_ready()


Servers = Literal["sentinel", "cluster"]
_PEOPLE: Final = 1_000_000
_REQUESTS: Final = 300
_ANSWER_PAUSE_SECONDS: Final = 0.02


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
            time.sleep(_ANSWER_PAUSE_SECONDS)


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

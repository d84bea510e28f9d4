"""Benchmarks of delivery: events a second that reach Insider.

The sender, Redis with `appendfsync always`, the workers, and the sandbox that checks and keeps
every user share the cores of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from random import Random
from typing import Any, Final

from segrelay.sandbox.people import AUDIENCES, Happening, happenings, payloads, truth
from segrelay.worker.errors import OperationsMustAct
from tests.rig import Rig, trigger_pairs
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
        exit_events: True if a third trigger makes two deliveries of an exit.
        profile_bytes: Size of a profile.
        fields: Least number of fields of a profile.
        partitions: Number of partitions of the destination.
        while_draining: True if the worker starts first; else it starts when all events are
            accepted.
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

"""Measures a request and the deliveries that it made: what they add to the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from worker.batch.parcel import Sent
from worker.batch.partition import Settled
from worker.contract.keys import split_stream_name
from worker.contract.measures import (
    ACCEPTED,
    ANSWERED,
    ASKED,
    CARRIED,
    DELIVERY_BOUNDS,
    OCCURRED,
    REQUEST_BOUNDS,
    fields_of_times,
    label_of_status,
    prefix_of_delivery,
)
from worker.contract.words import kind_of_lane
from worker.destinations.api import Answer


def measures_of_request(sent: Sent) -> dict[str, int]:
    """Return a request's counts: its answer, its user objects, and the time until the answer."""
    answer = sent.answer
    told = label_of_status(answer.status) if isinstance(answer, Answer) else answer.kind.value
    return {
        f"{ANSWERED}|{told}": 1,
        CARRIED: sent.request.users,
        **fields_of_times(ASKED, REQUEST_BOUNDS, [sent.elapsed_seconds]),
    }


def measures_of_deliveries(settled: Iterable[Settled], now_ms: int) -> dict[str, int]:
    """Return counts of the times that deliveries took since their events and their acceptance.

    An event that a comparison made up has happened at no known time.
    """
    by_stream: dict[str, tuple[list[float], list[float]]] = {}
    for outcome in settled:
        if outcome.reason is not None:
            continue
        delivery = outcome.delivery
        times = by_stream.get(delivery.stream)
        if times is None:
            times = by_stream[delivery.stream] = ([], [])
        accepted, occurred = times
        header = delivery.header
        accepted.append((now_ms - header.accepted_ms) / 1_000)
        if not header.state:
            occurred.append(now_ms / 1_000 - header.time_us / 1_000_000)
    counts: Counter[str] = Counter()
    for stream, (accepted, occurred) in by_stream.items():
        kind = kind_of_lane(split_stream_name(stream)[0])
        for since, seconds in ((ACCEPTED, accepted), (OCCURRED, occurred)):
            if seconds:
                prefix = prefix_of_delivery(kind, since)
                counts.update(fields_of_times(prefix, DELIVERY_BOUNDS, seconds))
    return counts

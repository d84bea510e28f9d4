"""A benchmark of one scrape of the metrics: its processor time and its duration."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

from redis import Redis

from segrelay.ops.demo.rig import trigger_pairs
from segrelay.ops.metrics.page import MetricsPage
from segrelay.worker.adapters.redis.presence import RedisProgress
from segrelay.worker.contract import keys
from segrelay.worker.contract.counts import (
    ACCEPTED,
    ANSWERED,
    ASKED,
    CARRIED,
    DELIVERY_BOUNDS,
    OCCURRED,
    REQUEST_BOUNDS,
    fields_of_times,
    prefix_of_delivery,
)
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.words import BACKFILL, LIVE
from tools.bench.frame.redis_alone import DESTINATION, audiences_of, redis_alone
from tools.bench.redis.ledger_size import CASES, packed, write_ledgers

_SCRAPES: Final = 30
_LEDGER: Final = "three audiences entered"
_OF_TRIGGER: Final = {
    "accepted|{}": 900,
    "delivered|{}": 880,
    "skipped|{}|duplicate": 18,
    "dead|{}|refused": 2,
}
"""The counts of each trigger in each partition."""


def scrape(events: int, triggers: int) -> dict[str, float]:
    """Measure scrapes of a Redis with many ledgers, and with counts of all triggers everywhere."""
    with redis_alone(DESTINATION + trigger_pairs(audiences_of(triggers))) as on:
        on.client.config_set("appendfsync", "no")  # the disk is not what is measured
        write_ledgers(on.client, packed(CASES[_LEDGER]), events)
        _write_counts(on.client, on.settings)
        page = MetricsPage(on.client, on.settings)
        page.text()
        return {
            "processor_ms": _median_ms(page.text, time.process_time),
            "ms": _median_ms(page.text, time.perf_counter),
            "bytes": len(page.text()),
        }


def _write_counts(client: Redis, settings: Settings) -> None:
    counts: Any = {
        name.format(trigger): count
        for trigger in settings.triggers
        for name, count in _OF_TRIGGER.items()
    }
    counts |= {f"{ANSWERED}|200": 400, CARRIED: 8_000}
    counts |= fields_of_times(ASKED, REQUEST_BOUNDS, REQUEST_BOUNDS)
    for kind in (LIVE, BACKFILL):
        for since in (OCCURRED, ACCEPTED):
            prefix = prefix_of_delivery(kind, since)
            counts |= fields_of_times(prefix, DELIVERY_BOUNDS, DELIVERY_BOUNDS)
    for number in range(settings.redis.partitions):
        client.hset(PartitionKeys("insider", number).counts, mapping=counts)
    RedisProgress(client, settings).intent()
    sample: Any = client.lindex(keys.PROGRESS, 0)
    client.rpush(keys.PROGRESS, *[sample] * 100)


def _median_ms(act: Callable[[], object], clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(_SCRAPES):
        begun = clock()
        act()
        taken.append(clock() - begun)
    return round(1_000 * median(taken), 2)

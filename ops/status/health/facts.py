"""The facts by which health is judged, read from Redis at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from producer.sync.run import Run
from worker.contract.processes.progress import Sample
from worker.contract.processes.receivers import Receivers
from worker.contract.redis.birth import Loss


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """The facts about Redis.

    Args:
        full: The reason why it accepts no more events; "" = it does.
        used, most: Bytes; most = 0 without a limit.
        weak: Reasons why it is less durable than promised.
        failing: Failed writes to its disk.
        takes_writes: False while it refuses them because of that.
        clock_ahead_seconds: The lead of this machine's clock over that of Redis.
        keys: The keys in its database; nearly all are ledgers.
    """

    full: str = ""
    used: int = 0
    most: int = 0
    weak: Sequence[str] = ()
    failing: Sequence[str] = ()
    takes_writes: bool = True
    losses: Sequence[Loss] = ()
    clock_ahead_seconds: float = 0.0
    keys: int = 0


@dataclass(frozen=True, slots=True)
class SyncFacts:
    """The facts about one sync."""

    run: Run
    every_seconds: float


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts that the rules read.

    Args:
        status: The document of `segrelay status`.
        samples: Samples of the progress, the newest first.
        workers_wanted: The configured number of workers; 0 = one is enough.
        limits: The configured requests of a minute, by destination.
        stopped_renamings: Digests (hex) of people whose renaming was stopped, and since when (ms).
        companions: When Flower and the metrics, if they are configured, were last seen (ms).
    """

    status: Mapping[str, Any]
    now_ms: int = 0
    live_within_seconds: float = 60.0
    events_within_seconds: float = 0.0
    has_webhook: bool = False
    audiences: Sequence[str] = ()
    redis: RedisFacts = field(default_factory=RedisFacts)
    syncs: Mapping[str, SyncFacts] = field(default_factory=dict)
    receivers: Receivers = field(default_factory=Receivers)
    samples: Sequence[Sample] = ()
    workers_wanted: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    companions: Mapping[str, int] = field(default_factory=dict)
    stopped_renamings: Mapping[str, int] = field(default_factory=dict)

"""The registry of our processes: workers with their configuration, Flower and the metrics.

`status` reads it, and the samples of how much is settled and how much waits.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

import orjson

from segrelay.worker.contract import keys
from segrelay.worker.contract.records import read_records
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import load_script, run_script

LIFE_MS: Final = 10_000
"""The time in ms after which a silent process counts as ended or hanging."""

WORKER: Final = "worker"


@dataclass(frozen=True, slots=True)
class FilesInUse:
    """The files that the templates of a worker use.

    Args:
        digests: By path in its templates folder; none = it has not told them.
        since_ms: The time of their last change, as far as the worker knows; Redis' clock.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has been seen lately.

    Args:
        config: `Settings.fingerprint` of what it was started with.
        stopped: Triggers that it can't work on, and why: a broken template, or an unset secret.
        version: Of segrelay.
        begun_ms: The time when it was started, by Redis' clock.
        doubted: Templates whose compiled form differed from the engine, and is off; how often.
        versions: Of the templates of its triggers; several while not all processes have the newest.
        refused: By trigger, why a changed template is not used.
        clock_ahead_seconds: Of its machine's clock before Redis' clock, in whole seconds.
        engine_use: By template and reason, how many of its last events needed the Jsonnet engine;
            the reason is "" for those that the compiled form rendered.
        files: Those that its templates use, as they lie in its folder.
        refused_messages: The number of messages in the broker that were none of ours, since it
            began; each was thrown away.
        killed: The number of its processes that ended without being told to, since it began.
        killed_ms: The time when the last of them was replaced.
    """

    host: str
    pid: int
    kind: str
    config: str
    stopped: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    begun_ms: int = 0
    doubted: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    clock_ahead_seconds: int = 0
    engine_use: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    files: FilesInUse = field(default_factory=FilesInUse)
    refused_messages: int = 0
    killed: int = 0
    killed_ms: int = 0

    def dumps(self) -> bytes:
        """Return the text that Redis keeps; an unchanged process has the same text."""
        return orjson.dumps(asdict(self))


def read_processes(client: Redis, unreadable: list[str] | None = None) -> list[Process]:
    """Return the processes that run, each as it was last seen; see `read_record`."""
    pipe = client.pipeline(transaction=False)
    pipe.time()
    pipe.zrange(keys.PROCESSES, 0, -1, withscores=True)
    (seconds, rest), members = cast("tuple[tuple[int, int], Sequence[Any]]", pipe.execute())
    since_us = seconds * 1_000_000 + rest - LIFE_MS * 1_000
    texts = (text for text, score in members if score > since_us)
    seen = read_records(Process, texts, "a worker", unreadable)
    return sorted(
        {(one.host, one.pid): one for one in seen}.values(), key=lambda one: (one.host, one.pid)
    )


def processes_here(client: Redis) -> list[Process]:
    """Return the processes that were seen lately and live on this machine."""
    name = socket.gethostname()
    return [one for one in read_processes(client) if one.host == name and _lives(one.pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


FLOWER: Final = "flower"
METRICS: Final = "metrics"
WORKER_ENDED: Final = "worker ended"
"""The kind under which a worker records that it ended in good order."""
_TELL: Final = load_script("process_seen")


def tell_seen(client: Redis, kind: str) -> None:
    """Record in Redis that a process of this kind runs now, or that a worker ended now."""
    run_script(client, _TELL, (keys.SEEN,), (kind,))


def read_seen(client: Redis) -> Mapping[str, int]:
    """Return when a process of each kind was last seen (ms, Redis' clock)."""
    stored: Any = client.hgetall(keys.SEEN)
    return {kind.decode(): int(at) for kind, at in stored.items()}


SAMPLE_EVERY_SECONDS: Final = 10.0
KEPT: Final = 360
"""The number of samples that are kept: an hour of them."""
QUARTER_SECONDS: Final = 900.0
KEPT_OF_WEEK: Final = 672
"""The number of quarters of an hour in a week, of each of which a sample is kept."""
RECENT_SAMPLES: Final = 15
"""The number of newest samples that are read: more than two minutes of them."""
_OLDER: Final = (80, 89, -1)
"""The positions of older samples that are read: around a quarter of an hour ago, and the oldest.

With 400 triggers a sample has 30 KB, and a scrape of the metrics would else read 90 of them.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """The counts at one moment.

    Args:
        at_ms: Redis' clock.
        counts: By destination, as `progress.lua` names them.
        quarantined: Records in the quarantine.
        workers: The number of those that ran.
        stopped: Destinations and triggers that were stopped, by `field_of`.
        fingerprints: Of each trigger, what stands for its template and configuration.
    """

    at_ms: int
    counts: Mapping[str, Mapping[str, int]]
    quarantined: int = 0
    workers: int = 0
    stopped: Sequence[str] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)


def sample_before(samples: Sequence[Sample], at_ms: float) -> Sample | None:
    """Return the newest sample of this time or before, else the oldest; None if there are none."""
    oldest = samples[-1] if samples else None
    return next((sample for sample in samples if sample.at_ms <= at_ms), oldest)


def read_samples(client: Redis, unreadable: list[str] | None = None) -> list[Sample]:
    """Return the samples of two minutes, some of a quarter of an hour ago, and the oldest.

    The newest stands first. See `read_record`.
    """
    pipe = client.pipeline(transaction=False)
    pipe.lrange(keys.PROGRESS, 0, RECENT_SAMPLES - 1)
    for position in _OLDER:
        pipe.lindex(keys.PROGRESS, position)
    newest, *older = pipe.execute()
    texts = dict.fromkeys(text for text in (*newest, *older) if text)
    return read_records(Sample, texts, "a sample of progress", unreadable)

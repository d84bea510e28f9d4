"""The presence of a worker in Redis: it runs, with which configuration, and how far it is."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.adapters.redis.gate import read_state
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.processes import (
    KEPT,
    KEPT_OF_WEEK,
    LIFE_MS,
    QUARTER_SECONDS,
    SAMPLE_EVERY_SECONDS,
    WORKER,
    WORKER_ENDED,
    FilesInUse,
    Process,
    Sample,
    read_processes,
    tell_seen,
)
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms, now_us
from segrelay.worker.contract.redis.lock import take_turn
from segrelay.worker.contract.redis.scripts import IN_ANY_CASE, ScriptCall, run_each, run_script
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import DESTINATION, TRIGGER, field_of, read_pauses
from segrelay.worker.core.gate import gate_id

EVERY_SECONDS: Final = 3.0
TOLD_KEPT: Final = 64
"""The number of announcements to take back at the end: far more than Redis still holds."""


class RedisPresence:
    """Announces in Redis every few seconds that this process runs.

    Args:
        client: With short timeouts.
        config: The configuration's fingerprint.
        about: Returns the fields of `Process` that tell of the node's templates and processes.
        files: Returns the digests of the files that templates use, by path.
        files_changed: Called when they have changed, and once more after that: whoever looked just
            before the change does not look again at once.
        alive_file: Touched whenever Redis was told, for the health check of a container; it is
            no part of anything else. None = there is none.
    """

    def __init__(
        self,
        client: Redis,
        config: str,
        *,
        clock: Callable[[], float],
        about: Callable[[], Mapping[str, Any]] = dict,
        files: Callable[[], Mapping[str, str]] = dict,
        files_changed: Callable[[], object] = lambda: None,
        alive_file: Path | None = None,
        watch: Callable[[], None] = lambda: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._config = config
        self._clock = clock
        self._about = about
        self._read_files = files
        self._files_changed = files_changed
        self._changed_before = False
        self._files = FilesInUse()
        self._alive_file = alive_file
        self._watch = watch
        self._wall_clock = wall_clock
        self._ahead_seconds = 0
        self._host = socket.gethostname()
        self._version = version("segrelay")
        self._next_at = 0.0
        self._begun_ms = 0
        self._told: dict[bytes, None] = {}

    def announce(self) -> None:
        """Announce that this process runs, unless that was done lately."""
        now = self._clock()
        if now < self._next_at:
            return
        self._next_at = now + EVERY_SECONDS
        at_us = now_us(self._client)
        self._ahead_seconds = round(self._wall_clock() - at_us / 1_000_000)
        self._begun_ms = self._begun_ms or at_us // 1_000
        self._look_at_files(at_us // 1_000_000 * 1_000)
        text = self._process().dumps()
        self._told = dict.fromkeys([*self._told, text][-TOLD_KEPT:])
        names = [keys.PROCESSES, keys.SEEN]
        run_script(self._client, scripts.source("appear"), names, [text, LIFE_MS, WORKER])
        if self._alive_file is not None:
            with suppress(OSError):  # the health check tells of it
                self._alive_file.touch()
        self._watch()

    def _look_at_files(self, now_ms: int) -> None:
        digests = dict(self._read_files())
        # What is seen first is no change: it was read when this node began.
        has_changed = digests != self._files.digests and self._files.since_ms > 0
        if digests != self._files.digests:
            self._files = FilesInUse(digests, now_ms)
        if has_changed or self._changed_before:
            self._files_changed()
        self._changed_before = has_changed

    def leave(self) -> None:
        """Take the latest announcements back at an orderly end; Redis has forgotten older ones."""
        if self._alive_file is not None:
            with suppress(OSError):
                self._alive_file.unlink(missing_ok=True)
        if self._told:
            self._client.zrem(keys.PROCESSES, *self._told)
            tell_seen(self._client, WORKER_ENDED)

    def _process(self) -> Process:
        return Process(
            self._host,
            os.getpid(),
            WORKER,
            self._config,
            version=self._version,
            begun_ms=self._begun_ms,
            clock_ahead_seconds=self._ahead_seconds,
            files=self._files,
            **self._about(),
        )


_LOCK_MS: Final = round(SAMPLE_EVERY_SECONDS * 1_000) - 500


class RedisProgress:
    """Keeps a sample every few seconds, whatever the number of workers.

    Args:
        client: With short timeouts.
        settings: Its destinations are sampled.
        stopped: Returns the triggers that this node can't work on.
    """

    def __init__(
        self,
        client: Redis,
        settings: Settings,
        stopped: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._client = client
        self._settings = settings
        self._stopped = stopped

    def note(self) -> None:
        """Keep a sample, if none was kept lately."""
        if not take_turn(self._client, keys.PROGRESS_LOCK, _LOCK_MS):
            return
        partitions = [
            PartitionKeys(name, number)
            for name in self._settings.destinations
            for number in range(self._settings.redis.partitions)
        ]
        calls = [
            ScriptCall((partition.counts, partition.streams, partition.retry), (partition.tag,))
            for partition in partitions
        ]
        answers = run_each(self._client, scripts.source("progress"), calls)
        counts: dict[str, Counter[str]] = {}
        for partition, flat in zip(partitions, answers, strict=True):
            of_destination = counts.setdefault(partition.destination, Counter())
            for name, count in zip(flat[::2], flat[1::2], strict=True):
                of_destination[name.decode()] += int(count)
        workers = sum(one.kind == WORKER for one in read_processes(self._client))
        stopped = sorted({*self._closed(), *_waiting(counts)})
        pipe = self._client.pipeline(transaction=False)
        pipe.hlen(keys.quarantine("about"))
        pipe.hgetall(keys.FINGERPRINTS)
        quarantined, stored = pipe.execute()
        fingerprints = {name.decode(): stored[name].decode()[:8] for name in stored}
        at_ms = now_ms(self._client)
        sample = Sample(at_ms, counts, quarantined, workers, stopped, fingerprints)
        self._keep(keys.PROGRESS, sample, KEPT)
        if take_turn(self._client, keys.WEEK_LOCK, round(QUARTER_SECONDS * 1_000) - 500):
            self._keep(keys.WEEK, replace(sample, stopped=(), fingerprints={}), KEPT_OF_WEEK)

    def _keep(self, key: str, sample: Sample, most: int) -> None:
        words = ("LPUSH", orjson.dumps(sample)), ("LTRIM", 0, most - 1)
        run_each(self._client, IN_ANY_CASE, [ScriptCall((key,), each) for each in words])

    def _closed(self) -> Iterator[str]:
        """Yield the destinations and triggers that are stopped, as fields of pauses."""
        pauses = read_pauses(self._client)
        for name, one in self._settings.destinations.items():
            gate = read_state(self._client, gate_id(one.base_url, one.gate_scope))
            if name in pauses.destinations or gate.state in {"paused", "broken"}:
                yield field_of(DESTINATION, name)
        for name in {*pauses.triggers, *self._stopped()}:
            yield field_of(TRIGGER, name)


def _waiting(counts: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Take the triggers that wait after failures out of the counts, and yield them as fields."""
    for of_destination in counts.values():
        for name in [name for name in of_destination if name.startswith("delayed|")]:
            del of_destination[name]
            yield field_of(TRIGGER, name.partition("|")[2])

"""The sweep's view of Redis: workers, samples, due partitions and jobs, lapsed ledgers."""

from __future__ import annotations

import os
import re
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.adapters.redis.gate import look_call, looks, read_state
from segrelay.worker.adapters.redis.shared_keys import ask_editions, newest_editions
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import (
    RESPONSES_TASK,
    RETENTION_TASK,
    SYNC_TASK,
    VERIFY_TASK,
    WATCH_TASK,
    BackgroundJob,
)
from segrelay.worker.contract.keys import DIGEST_BYTES, PartitionKeys, split_stream_name
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
    tell_seen,
)
from segrelay.worker.contract.redis.claim import read_names
from segrelay.worker.contract.redis.client import Redis, run_through
from segrelay.worker.contract.redis.connection import now_ms, now_us
from segrelay.worker.contract.redis.lock import take_turn
from segrelay.worker.contract.redis.scanning import scan_keys
from segrelay.worker.contract.redis.scripts import (
    IN_ANY_CASE,
    ScriptCall,
    run_each,
    run_together,
)
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.http import fingerprint_of
from segrelay.worker.contract.triggers import (
    DESTINATION,
    TRIGGER,
    field_of,
    label,
    parse_pauses,
    read_pauses,
)
from segrelay.worker.contract.words import BACKFILL, LIVE
from segrelay.worker.core.backoff import longest_ms
from segrelay.worker.core.gate import Open, gate_id
from segrelay.worker.core.rounds import Sight, WakeUp

EVERY_SECONDS: Final = 3.0
TOLD_KEPT: Final = 64
"""The number of announcements to take back at the end: far more than Redis still holds."""


class RedisPresence:
    """Announces in Redis every few seconds that this process runs.

    Args:
        client: A client with short timeouts.
        config: The fingerprint of the configuration, see `Settings.fingerprint`.
        about: A function that returns the fields of `Process` about the node's templates and
            processes.
        files: A function that returns the digests of the files that templates use, by path.
        files_changed: A function that is called when these files have changed, and once more after
            that: whoever looked just before the change does not look again at once.
        alive_file: The file that is touched whenever Redis was told, for the health check of a
            container; None = there is none.
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
        life_us = 1_000 * LIFE_MS
        former = ("ZREMRANGEBYSCORE", "-inf", at_us - life_us)
        words = former, ("ZADD", at_us, text), ("PEXPIRE", LIFE_MS)
        run_each(self._client, IN_ANY_CASE, [ScriptCall((keys.PROCESSES,), one) for one in words])
        tell_seen(self._client, WORKER)
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
        client: A client with short timeouts.
        settings: The configuration, which names the destinations to sample.
        stopped: A function that returns the triggers that this node can't work on.
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
        stopped = sorted({*self._closed(), *_waiting(counts)})
        pipe = self._client.pipeline(transaction=False)
        pipe.hlen(keys.quarantine("about"))
        pipe.hgetall(keys.FINGERPRINTS)
        quarantined, stored = pipe.execute()
        fingerprints = {name.decode(): stored[name].decode()[:8] for name in stored}
        at_ms = now_ms(self._client)
        sample = Sample(at_ms, counts, quarantined, stopped, fingerprints)
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


_BACKFILL_IS_DUE: Final = 3
LOCK_MS: Final = 900
"""The time in ms for which a sweeper holds the lock: less than a round, so others can follow."""


class RedisSurvey:
    """Looks at the partitions of the destinations that the configuration names.

    Args:
        client: A client with short timeouts: whoever asks must not wait for long.
        settings: The configuration; streams of triggers that it does not name are left alone.
        stopped: A function that returns the names of triggers that this node can't work on.
    """

    def __init__(
        self,
        client: Redis,
        settings: Settings,
        *,
        stopped: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._client = client
        self._settings = settings
        self._stopped = stopped
        self._lock = f"{keys.SWEEP}:{settings.fingerprint}"

    def may_sweep(self) -> bool:
        """Say whether this node does the round: one node of each configuration does."""
        return take_turn(self._client, self._lock, LOCK_MS)

    def look(self) -> list[Sight]:
        """Return the partitions with a stream that may be worked on, and wake the due ones."""
        calls = list(self._calls())
        found = run_each(self._client, scripts.source("due"), [call for _, call in calls])
        return [
            Sight(
                WakeUp(
                    BACKFILL if due == _BACKFILL_IS_DUE else LIVE,
                    partition.destination,
                    partition.number,
                ),
                due=bool(due),
                waking=bool(waking),
                held=bool(held),
            )
            for (partition, _), (due, waking, held) in zip(calls, found, strict=True)
        ]

    def _calls(self) -> Iterator[tuple[PartitionKeys, ScriptCall]]:
        """Yield the partitions with a stream that may be worked on, and ask each if it is due.

        Pauses, gates and the names of streams are read in one round trip.
        """
        settings = self._settings
        destinations = list(settings.destinations.values())
        triggers = [[one.name for one in settings.triggers_of(each.name)] for each in destinations]
        partitions = [
            PartitionKeys(destination.name, number)
            for destination in destinations
            for number in range(settings.redis.partitions)
        ]
        gates = [
            look_call(destination, fingerprint_of(settings.authorization_of(destination)), names)
            for destination, names in zip(destinations, triggers, strict=True)
        ]
        shared = (("HGETALL", keys.PAUSED), ask_editions(settings.triggers))
        streams = (("SMEMBERS", partition.streams) for partition in partitions)
        answers = run_through(run_together(self._client, gates, (*shared, *streams)))
        stored, editions, *names_of_streams = answers[len(gates) :]
        pauses = parse_pauses(stored)
        newest = newest_editions(settings.triggers, editions)
        paused = {*pauses.triggers, *self._stopped()}
        ready = {
            destination.name: {
                name for name, look in looks(names, answer).items() if isinstance(look, Open)
            }
            - paused
            for destination, names, answer in zip(
                destinations, triggers, answers[: len(gates)], strict=True
            )
            if destination.name not in pauses.destinations
        }
        longest = longest_ms(settings.delivery.late_seconds)
        for k, names in zip(partitions, names_of_streams, strict=True):
            open_triggers = ready.get(k.destination, set())
            of_streams = [split_stream_name(name.decode()) for name in names]
            idle = {trigger for _, trigger in of_streams if trigger not in open_triggers}
            idle |= (lanes := {lane for lane, _ in of_streams if lane in pauses.lanes})
            if all(trigger in idle or lane in lanes for lane, trigger in of_streams):
                continue
            waiting = {trigger for _, trigger in of_streams} & settings.triggers.keys()
            labels = {label(trigger, newest.get(trigger, "")) for trigger in waiting}
            names_of_keys = (k.lease, k.holds, k.streams, k.retry, k.wakeup)
            yield k, ScriptCall(names_of_keys, (k.tag, longest, *sorted(idle | labels)))


AGAIN_MS: Final = 3_000
"""The time in ms after which an unanswered wake-up is sent again."""
LONGEST_LOCK_MS: Final = 60_000
"""The longest time of a lock in ms; one that ends later was set before the clock was set back."""


class RedisSchedule:
    """Finds the due background jobs: of syncs, retention, responses and more.

    Args:
        client: A client with short timeouts: whoever asks must not wait for long.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._client = client
        verified = {n for n, each in settings.destinations.items() if each.verify_every_seconds}
        told = {each.destination for each in settings.triggers.values() if each.response_stream}
        # By the key of its state.
        self._jobs = {
            key_of(name): BackgroundJob(task, name)
            for task, key_of, names in (
                (SYNC_TASK, keys.sync, settings.sync),
                (WATCH_TASK, keys.watch, settings.backfill.watch),
                (VERIFY_TASK, keys.verify, verified),
                (RESPONSES_TASK, keys.responses, sorted(told)),
            )
            for name in names
        } | {keys.RETENTION: BackgroundJob(RETENTION_TASK, "retention")}
        numbers = range(settings.redis.partitions)
        # Streams without which a background job has nothing to do, by the same key.
        self._work = {
            keys.responses(name): [PartitionKeys(name, number).responses for number in numbers]
            for name in told
        }

    def due(self) -> list[BackgroundJob]:
        """Return the due background jobs that nobody does or was woken, and mark them as woken."""
        due = self._due()
        mark = ("SET", "1", "NX", "PX", AGAIN_MS)
        marks = [ScriptCall((keys.wakeup(key),), mark) for key in due]
        answers = run_each(self._client, IN_ANY_CASE, marks)
        return [self._jobs[key] for key, was_set in zip(due, answers, strict=True) if was_set]

    def _due(self) -> list[str]:
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        for key in self._jobs:
            pipe.hmget(key, "next", "until")
        for stream in chain.from_iterable(self._work.values()):
            pipe.xlen(stream)
        (seconds, micros), *answers = pipe.execute()
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000
        lengths = iter(answers[len(self._jobs) :])
        empty = {key for key, names in self._work.items() if not sum(islice(lengths, len(names)))}
        return [
            key
            for key, (next_ms, until_ms) in zip(self._jobs, answers, strict=False)
            if key not in empty
            and int(next_ms or 0) <= now_ms
            and not now_ms < int(until_ms or 0) <= now_ms + LONGEST_LOCK_MS
        ]


_LEDGER: Final = re.compile(rb"\{([a-z0-9~-]+):(\d+)\}l.{%d}" % DIGEST_BYTES, re.DOTALL)

_KEYS_A_STEP: Final = 500
"""The keys that one step looks at, once a second: 43 million a day."""


class RedisLapsing:
    """Looks at all ledgers in turn, a few at each call, and begins anew at the end.

    It is in no hurry: a ledger that is removed late costs a few bytes. Where a slot of a Cluster is
    being moved, or another server has taken over, the next turn begins.

    Args:
        client: A client with short timeouts.
        settings: The configuration, which says how many partitions there are.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._found: Iterator[list[bytes]] = iter(())

    def step(self) -> int:
        """Look at the next ledgers; return how many were removed."""
        calls = [
            ScriptCall((partition.lease, partition.streams, *names), (partition.tag,))
            for partition, names in self._next().items()
        ]
        return sum(run_each(self._client, scripts.source("lapse"), calls)) if calls else 0

    def _next(self) -> dict[PartitionKeys, list[bytes]]:
        """Return the next ledgers by their partitions; nothing at the end of a turn."""
        names = next(self._found, None)
        if names is None:
            self._found = self._all()
        found: defaultdict[PartitionKeys, list[bytes]] = defaultdict(list)
        for name in names or ():
            match = _LEDGER.fullmatch(name)
            if match and int(match[2]) in range(self._settings.redis.partitions):
                found[PartitionKeys(match[1].decode(), int(match[2]))].append(name)
        return found

    def _all(self) -> Iterator[list[bytes]]:
        partitions = [
            PartitionKeys(name, number)
            for name in read_names(self._client)
            for number in range(self._settings.redis.partitions)
        ]
        yield from scan_keys(self._client, partitions, "l*", "string", count=_KEYS_A_STEP)

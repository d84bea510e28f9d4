"""The registry of our processes, the answers of receivers, and samples of progress.

The samples hold how much is settled and how much waits. A request to a receiver has an id, its
outcome, and whom it was about: a line of the receiver's log leads to people, and `segrelay why
PERSON` leads to the line.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, cast

import orjson

from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import DIGEST_BYTES
from segrelay.worker.contract.own_processes import random_bits
from segrelay.worker.contract.records import read_record, read_records
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import now_ms
from segrelay.worker.contract.redis.scripts import (
    IN_ANY_CASE,
    ScriptCall,
    load_script,
    run_each,
    run_script,
)

LIFE_MS: Final = 10_000
"""The time in ms after which a silent process counts as ended or hanging."""

WORKER: Final = "worker"


@dataclass(frozen=True, slots=True)
class FilesInUse:
    """The files that the templates of a worker use.

    Args:
        digests: The digests by path in its templates folder; none = it has not told them.
        since_ms: The time of their last change by Redis' clock, as far as the worker knows.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has been seen lately.

    Args:
        config: `Settings.fingerprint` of what it was started with.
        stopped: Why it can't work on a trigger, by the trigger's name: a broken template, or an
            unset secret.
        version: The version of segrelay that it runs.
        begun_ms: The time when it was started, by Redis' clock.
        doubted: The number of times that a template's compiled form differed from the engine, by
            template; it is off then.
        versions: The versions of its triggers' templates; several while not all processes have the
            newest.
        refused: Why a changed template is not used, by trigger.
        clock_ahead_seconds: The whole seconds that its machine's clock is ahead of Redis' clock.
        files: The files that its templates use, as they lie in its folder.
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
    at_us, life_us = seconds * 1_000_000 + rest, LIFE_MS * 1_000
    # What was said long after now was said before the clock was set back.
    texts = (text for text, score in members if at_us - life_us < score <= at_us + life_us)
    seen = read_records(Process, texts, "a worker", unreadable)
    return sorted(
        {(one.host, one.pid): one for one in seen}.values(), key=lambda one: (one.host, one.pid)
    )


WORKER_ENDED: Final = "worker ended"
"""The kind under which a worker records that it ended in good order."""


def tell_seen(client: Redis, kind: str) -> None:
    """Record in Redis that a process of this kind runs now, or that a worker ended now."""
    run_script(client, IN_ANY_CASE, (keys.SEEN,), ("HSET", kind, now_ms(client)))


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
        at_ms: The time by Redis' clock.
        counts: The counts of each destination, by the names that `progress.lua` gives them.
        quarantined: The number of records in the quarantine.
        stopped: The destinations and triggers that were stopped, as `field_of` writes them.
        fingerprints: The edition of each trigger, which stands for its template and configuration.
    """

    at_ms: int
    counts: Mapping[str, Mapping[str, int]]
    quarantined: int = 0
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


SEEN_WITHIN_MS: Final = 12_000
"""Milliseconds after which a receiver counts as gone; it reports every five seconds."""
BUCKET_MS: Final = 300_000
KEPT_BUCKETS: Final = 13
"""The number of buckets of five minutes that are kept: an hour, and the one that is not over."""
_TELL_ANSWERS: Final = load_script("receiver_tell")


@dataclass(frozen=True, slots=True)
class RunningReceiver:
    """A receiver that reported lately.

    Args:
        seen_ms, begun_ms: The times of its last report and of its start, by Redis' clock.
        lag_ms: The shorter delay of its last two timers, which shows a busy event loop.
        clock_ahead_seconds: The whole seconds that its machine's clock is ahead of Redis' clock.
        config: `Settings.fingerprint` of what it was started with.
    """

    seen_ms: int = 0
    lag_ms: int = 0
    clock_ahead_seconds: float = 0.0
    begun_ms: int = 0
    config: str = ""

    @classmethod
    def read(cls, text: bytes, unreadable: list[str] | None) -> RunningReceiver | None:
        """Return the receiver of a field in Redis; see `read_record`."""
        names = ("seen_ms", "lag_ms", "clock_ahead_seconds", "begun_ms", "config")
        stored = dict(zip(names, text.decode(errors="replace").split("|"), strict=False))
        found = read_record(cls, stored, "a receiver", unreadable)
        return found and replace(found, clock_ahead_seconds=found.clock_ahead_seconds / 1_000)


@dataclass(frozen=True, slots=True)
class Receivers:
    """The last reports of the receivers, summed up: their answers, and when they were seen.

    Args:
        seen_ms: The time when one was last seen; 0 = never.
        event_ms: The time of the last events; 0 = none have come.
        back_ms: The time when one was seen again after none had been for a while.
        running: The receivers that were seen in the last five minutes, by host and process.
        answers: The number of requests answered in the last hour, by status.
        since_taken: The number of requests answered since one was last taken, by status.
        taken_ms: The time when a request was last taken; 0 = never.
        ever: The number of requests answered since the beginning, by status.
        last_ms: The time when each status was last answered.
    """

    seen_ms: int = 0
    event_ms: int = 0
    back_ms: int = 0
    running: Mapping[str, RunningReceiver] = field(default_factory=dict)
    answers: Mapping[int, int] = field(default_factory=dict)
    since_taken: Mapping[int, int] = field(default_factory=dict)
    taken_ms: int = 0
    ever: Mapping[int, int] = field(default_factory=dict)
    last_ms: Mapping[int, int] = field(default_factory=dict)


def report_receiver(
    client: Redis,
    answers: Mapping[int, int],
    since_taken: Mapping[int, int],
    *,
    lag_ms: int,
    events: bool,
    config: str = "",
    begun_at: float = 0.0,
) -> None:
    """Add the answers of this receiver since its last report.

    Args:
        client: Redis.
        answers: The number of answers by status, since its last report.
        since_taken: The part of `answers` since a request was last taken.
        lag_ms: The shorter delay of its last two timers, which shows a busy event loop; -1 = it
            ends.
        events: True if something was stored.
        config: The fingerprint of its configuration.
        begun_at: The time when it was started, by the monotonic clock.
    """
    name = f"{socket.gethostname()}:{os.getpid()}"
    flat = [
        part
        for status, count in answers.items()
        for part in (status, count, since_taken.get(status, 0))
    ]
    runs_ms = round((time.monotonic() - begun_at) * 1_000)
    limits = (BUCKET_MS, KEPT_BUCKETS, SEEN_WITHIN_MS)
    clock_ms = round(time.time() * 1_000)
    head = (name, lag_ms, int(events), *limits, clock_ms, config, runs_ms)
    run_script(client, _TELL_ANSWERS, (keys.RECEIVER,), (*head, *flat))


def read_receivers(client: Redis, now_ms: int, unreadable: list[str] | None = None) -> Receivers:
    """Return the answers that the receivers have reported; see `read_record`."""
    stored: Any = client.hgetall(keys.RECEIVER)
    bucket = now_ms // BUCKET_MS
    running = dict[str, RunningReceiver]()
    by_status = defaultdict[str, Counter[int]](Counter)
    for name, value in stored.items():
        head, mark, rest = name.decode().partition("|")
        if head == "up":
            receiver = RunningReceiver.read(value, unreadable)
            if receiver and receiver.seen_ms > now_ms - BUCKET_MS:
                running[rest] = receiver
        elif mark and not (head.isdigit() and int(head) <= bucket - KEPT_BUCKETS):
            by_status["answers" if head.isdigit() else head][int(rest)] += int(value)
    return Receivers(
        int(stored.get(b"seen", 0)),
        int(stored.get(b"event", 0)),
        int(stored.get(b"back", 0)),
        running,
        by_status["answers"],
        by_status["since"],
        int(stored.get(b"taken", 0)),
        by_status["all"],
        by_status["last"],
    )


REQUEST_ID: Final = re.compile(r"req-[0-9a-f]{16}")
MOST_REQUESTS: Final = 2_000
MOST_PEOPLE: Final = 1_000
"""The most people of a request whose digests are kept, at 10 bytes each."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A request to the receiver that was answered.

    Args:
        name: The request's id.
        status: The status of the answer.
        accepted: The number of deliveries that are in Redis because of it.
        quarantined: The number of events and payloads that could not be placed.
        people: The digests of those whom the deliveries are about.
        at_ms: The time when it was kept, a few seconds after its answer, by Redis' clock.
    """

    name: str
    status: int
    accepted: int = 0
    quarantined: int = 0
    people: Sequence[bytes] = ()
    at_ms: int = 0


def new_request_id() -> str:
    """Return an id that no other request has."""
    return f"req-{random_bits(64):016x}"


def keep_requests(client: Redis, requests: Iterable[WebhookRequest]) -> None:
    """Keep requests, and forget the oldest ones."""
    calls = []
    for one in requests:
        people = b"".join(one.people[:MOST_PEOPLE])
        about = ("id", one.name, "status", one.status, "accepted", one.accepted)
        more = ("quarantined", one.quarantined, "people", people)
        args = ("XADD", "MAXLEN", "~", MOST_REQUESTS, "*", *about, *more)
        calls.append(ScriptCall((keys.REQUESTS,), args))
    run_each(client, IN_ANY_CASE, calls)


def forget_requests(client: Redis, digests: Iterable[bytes]) -> int:
    """Forget the requests that were about one of these people; returns how many there were."""
    wanted = set(digests)
    rows: Any = client.xrange(keys.REQUESTS)
    gone = [name for name, fields in rows if wanted & set(_people(fields[b"people"]))]
    return int(client.xdel(keys.REQUESTS, *gone)) if gone else 0


def _people(text: bytes) -> list[bytes]:
    return [text[at : at + DIGEST_BYTES] for at in range(0, len(text), DIGEST_BYTES)]


def read_requests(client: Redis) -> Iterator[WebhookRequest]:
    """Yield the requests that are kept, the newest first."""
    rows: Any = client.xrevrange(keys.REQUESTS)
    for entry_id, fields in rows:
        yield WebhookRequest(
            fields[b"id"].decode(),
            int(fields[b"status"]),
            int(fields[b"accepted"]),
            int(fields[b"quarantined"]),
            _people(fields[b"people"]),
            int(entry_id.partition(b"-")[0]),
        )

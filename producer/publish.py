"""Publishing: turn payloads or events into deliveries in Redis. Every producer ends here.

From an application of your own, with the `segrelay.toml` that the commands use:

    from segrelay.producer.publish import open_publisher

    with open_publisher() as publisher:
        published = publisher.publish([payload])  # a dict as JSON text, see `publish`
        print(published.document())               # what `segrelay send --json` prints
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from segrelay.producer.events.payloads import Payload, Refused, RowForm
from segrelay.producer.publishing.audiences import AudienceStore
from segrelay.producer.publishing.drafting import Drafter
from segrelay.producer.publishing.published import (
    AS_USUAL,
    NOWHERE,
    CapacityMeter,
    Draft,
    JobPosition,
    MemberChange,
    PartitionAddress,
    Portion,
    Published,
    PublishOptions,
    lay_out,
    write,
)
from segrelay.producer.publishing.quarantine import CAP_BYTES, HowPublished, Quarantine
from segrelay.producer.wakeups import CeleryWaker, Waker
from segrelay.worker.contract.events import Event
from segrelay.worker.contract.own_processes import switch_threads_often
from segrelay.worker.contract.redis.accept import Roll
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect, resolve_url, wait_ready
from segrelay.worker.contract.settings import Settings, Trigger, load_settings
from segrelay.worker.contract.words import LIVE, Direction, job_of_lane, kind_of_lane
from segrelay.worker.errors import RedisUnavailable, SealedAnew


class Publisher:
    """Publishes for one configuration; in one thread, and `draft` beside it in another.

    Args:
        client: the client of the configured Redis, from `connect`.
        settings: The configuration.
        waker: The waker of partitions that nobody has woken yet; None = by Celery.
        dry_run: True if it says what would come of everything, and writes nothing.
    """

    def __init__(
        self,
        client: Redis,
        settings: Settings,
        *,
        waker: Waker | None = None,
        dry_run: bool = False,
    ) -> None:
        self._client = client
        self._settings = settings
        self._waker = waker or CeleryWaker(settings)
        self._dry_run = dry_run
        self._meter = CapacityMeter(client, settings)
        self.audiences = AudienceStore(client, learns=not dry_run)
        self._drafter = Drafter(settings, self.audiences, self._meter)
        self._quarantine = Quarantine(client)
        self._claimed = dry_run

    def now_us(self) -> int:
        return self._meter.now_us()

    def why_full(self, lane: str = LIVE) -> str:
        """Return why this lane has no room, "" = it has; a backfill asks before each call."""
        return self._meter.lane(lane)

    def publish(
        self,
        payloads: Iterable[bytes | Payload | Event],
        options: PublishOptions = AS_USUAL,
        *,
        position: int | None = None,
        source: str = "",
    ) -> Published:
        """Write deliveries into Redis, quarantine what has none, and wake the partitions.

        Args:
            payloads: The JSON texts, payloads that were parsed, or events. A payload is what
                Lytics' webhook sends: `{"id", "data", "meta"}`, a CloudEvent, or the bare profile;
                each with `segment_events`, one or an array of them.
            options: The way in which they are published.
            position: The position in the job's source at which this call ends. It is kept for each
                partition: of what ends at or before it, only what no earlier attempt placed is
                placed. So calls must end at the same positions in every run.
            source: The source that the positions count in, e.g. a digest of the file.

        Returns:
            The result, once Redis has the deliveries; with `dry_run`, the result that there would
            be.

        Raises:
            RedisUnavailable: Redis is full (then nothing was written), or was lost in between
                (then some of it may be written; publishing all of it again is safe, but for
                changes that have no time of their own: each time they are others).
            RedisMismatch: Redis is in use with another configuration.
            UsageWrong: There is no such lane.
        """
        options = options.resolved()
        self._prepare()
        draft = self._drafter.draft(payloads, options)
        draft.result.people = draft.people(0)
        return self.write_draft(draft, JobPosition(job_of_lane(options.lane), position, source))

    def draft(
        self, rows: Iterable[Payload], form: RowForm | None, options: PublishOptions
    ) -> Draft:
        """Draft the deliveries of a block of rows, for `write_draft`.

        The next block may be drafted in another thread while one is written. What has no time of
        its own has that of its draft.

        Args:
            rows: the rows as a source reads them; a row may be an array of several.
            form: the event of profiles without events of their own; None = they are refused.
            options: the job, and the way in which its rows are published.

        Raises:
            RedisUnavailable: Redis can't be asked.
            RedisMismatch: As `publish`.
        """
        self._claim()
        return self._drafter.draft(rows, options.resolved(), form=form)

    def lay_out(
        self,
        draft: Draft,
        progress: JobPosition = NOWHERE,
        rolls: Mapping[PartitionAddress, Roll] = MappingProxyType({}),
    ) -> Draft:
        """Turn what a draft holds into the calls that write it; asks Redis nothing.

        Args:
            draft: the draft.
            progress: the position in the job's source at which it ends.
            rolls: the members of a sync that change with it, by partition.
        """
        queue = kind_of_lane(draft.lane)
        draft.calls = {}
        if not self._dry_run:
            draft.calls = lay_out(
                draft.deliveries,
                progress,
                rolls,
                draft.entrants,
                secret_id=draft.secret_id,
                wakeup=lambda to: self._waker.text(*to, queue=queue),
            )
        draft.deliveries, draft.members, draft.entrants = {}, {}, {}
        return draft

    def write_draft(self, draft: Draft, progress: JobPosition = NOWHERE) -> Published:
        """Write a draft to Redis, and return the counts of its events.

        It may be written again after an error: its events have the times of the draft.

        Args:
            draft: The draft, be it laid out or not.
            progress: The position in the job's source at which it ends, with which it was laid out.

        Raises:
            RedisUnavailable: As `publish`.
            RedisMismatch: As `publish`.
            JobHeld: The job was paused, aborted, or is read by somebody else.
        """
        self._prepare()
        if draft.calls is None:
            self.lay_out(draft, progress)
        return self._carry_out(draft, progress)

    def publish_each(
        self, groups: Iterable[Iterable[Payload]], *, portion: Portion, together: Portion
    ) -> list[Published]:
        """Publish groups of payloads as usual in one write, and return the result of each group.

        Args:
            groups: The groups, such as the bodies of requests that arrived together.
            portion: The largest number of events and bytes that is taken of each group.
            together: The largest number of events and bytes that is written at once; the groups
                behind it are not looked at, and have no result.

        Raises:
            RedisUnavailable: As `publish`.
            RedisMismatch: As `publish`.
        """
        self._claim()
        draft, results = self._drafter.draft_each(groups, portion=portion, together=together)
        self.write_draft(draft)
        return results

    def publish_members(
        self, destination: str, changes: Sequence[MemberChange], lane: str, sync: str, token: str
    ) -> Published:
        """Write the members that a step of a sync has changed, together with their deliveries.

        Raises:
            RedisUnavailable: As `publish`; comparing and publishing it again is safe.
            LeaseLost: A later step of the sync has begun.
        """
        self._prepare()
        draft = self._drafter.draft_members(destination, changes, lane)
        rolls = {to: Roll(sync, token, members) for to, members in draft.members.items()}
        return self.write_draft(self.lay_out(draft, rolls=rolls))

    def keep_rows(self, refused: Sequence[Refused]) -> None:
        """Put rows of a source that hold no event of their own into the quarantine."""
        if refused and not self._dry_run:
            self._keep(refused, self._meter.now_us(), (LIVE, True, False))

    def triggers_for(self, audience: str, direction: Direction) -> tuple[Trigger, ...]:
        """Return the triggers that want an audience's events of this direction."""
        return self._drafter.triggers_for(audience, direction)

    def read_again(
        self, content: bytes, options: PublishOptions, *, arrived_us: int
    ) -> list[Event | Refused]:
        """Read a text from the quarantine by today's configuration; see `Drafter.judged`."""
        self._prepare()
        return self._drafter.judged(content, options, arrived_us=arrived_us)

    def _prepare(self) -> None:
        full = self._meter.memory()
        if full:
            raise RedisUnavailable(full)
        self._claim()

    def _claim(self) -> None:
        if not self._claimed:
            claim(self._client, self._settings)
            self._claimed = True

    def _carry_out(self, draft: Draft, progress: JobPosition) -> Published:
        count = draft.deliveries_count
        if self._dry_run:
            return draft.result + Published(accepted=count)
        try:
            # First what was refused: if the answer to the deliveries is lost, and by the next
            # attempt one of the refused can be placed, its partition may be beyond this chunk.
            if draft.kept:
                reading = draft.reading
                how = (draft.lane, reading.state, reading.skip_hook)
                self._keep(draft.kept, reading.now_us, how)
            written = write(self._client, draft.calls or {}, progress)
        except SealedAnew:
            self._claimed = False
            raise
        written.repeated = count - written.accepted
        # At once: the first of its events waits for nothing else.
        self._waker.wake(written.woken, queue=kind_of_lane(draft.lane))
        self._meter.add(written.accepted)
        return draft.result + written

    def _keep(self, refused: Sequence[Refused], now_us: int, how: HowPublished) -> None:
        cap_bytes = self._meter.quarantine_bytes(CAP_BYTES)
        self._quarantine.keep(refused, now_ms=now_us // 1_000, cap_bytes=cap_bytes, how=how)


_COLLECT_AFTER: Final = (100_000, 20, 50)
"""Thresholds of the garbage collector while rows are read: many objects without cycles."""


@contextmanager
def in_bulk() -> Iterator[None]:
    """Set up the interpreter for a thread that drafts and one that writes all the while."""
    _keep_freed_memory()
    thresholds, switched_seconds = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(*_COLLECT_AFTER)
    switch_threads_often()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(switched_seconds)


_TRIM_THRESHOLD: Final = -1
"""The parameter of `mallopt` that says from how many bytes on freed memory goes back."""
_KEPT_BYTES: Final = 64 * 1024 * 1024


def _keep_freed_memory() -> None:
    """Keep the memory that a block has freed for the next one, where the C library can.

    It would give memory back to the system behind each block, and the system has to clear it for
    the next: a third of what drafting a row takes. There is no such setting but in glibc.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


@contextmanager
def open_publisher(config: Path | None = None) -> Iterator[Publisher]:
    """Load the configuration, wait up to 10 s for Redis, and yield a publisher.

    Args:
        config: The path of the `segrelay.toml`; None = it is found as the commands find it.

    Raises:
        ConfigurationInvalid: With every problem.
        RedisUnavailable: Redis was not ready in time.
    """
    settings = load_settings(config)
    url = resolve_url(settings.redis)
    wait_ready(url)
    with closing(connect(url, replicas=settings.redis.replicas)) as client:
        yield Publisher(client, settings)

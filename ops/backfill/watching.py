"""Watching a place for new files: a background job of the workers, one step at a time.

A step lists the place, takes one new version of a file, and has the job of it read by a process
beside the worker's, which ends with that one and reads one file after the other. The next steps
look after the job until it is read, and have it read again where that ended before; then they take
the next file. A file of which no job can be made stays, and is tried again with each look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import Any, Final, Protocol

import structlog
from celery import shared_task

from segrelay.ops.backfill.job_request import RowOptions, refuse_forgotten_rows, spec_of
from segrelay.ops.state.partitions import all_partitions
from segrelay.producer.backfill.jobs import Job, JobPhase, JobStore, Spec
from segrelay.producer.backfill.reader import JobReader
from segrelay.producer.backfill.watches import Version, WatchState, WatchStore
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.producer.sources.opening import listing_of, look_at_file
from segrelay.producer.sources.remote import Found
from segrelay.producer.steps import STEP_SECONDS, Step, wait_seconds
from segrelay.producer.tasks import client_of, do_background_job
from segrelay.worker.contract.celery import WATCH_TASK, BackgroundJob, ResultLine, Turn, Turns
from segrelay.worker.contract.redis.acts import Act, note_act
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import BackfillWatch, Settings
from segrelay.worker.contract.settings.problems import did_you_mean
from segrelay.worker.contract.settings.urls import is_remote
from segrelay.worker.errors import (
    LeaseLost,
    RedisUnavailable,
    SegrelayError,
    SourceDamaged,
    SourceUnavailable,
    UsageWrong,
)

LOG: Final = structlog.get_logger()
READ_AGAIN_SECONDS: Final = 2.0
"""The seconds between two looks at a job that is being read."""
_LOOK_SECONDS: Final = 0.1
_HOLD_SECONDS: Final = 5.0
"""The seconds after which a step that reads a file extends its lock."""
_STARTS_IN_VAIN: Final = 2
"""The readers of a job that end without coming forward, until that is a problem."""
_MOST_NOTED: Final = 1_000
"""The most new files of which it is kept since when they are steady, or why they are refused."""
JOBS_KEPT: Final = 100
"""The jobs of a watch that are kept when they are over, and as many that failed."""
_FORGOTTEN_AT_ONCE: Final = 10
_GOES_ON: Final[frozenset[JobPhase]] = frozenset({"read", "failed", "aborted"})
"""The phases of a job after which the next file is taken."""


class Reader(Protocol):
    """The reading of a job by another process."""

    def is_alive(self) -> bool:
        """Say whether it still reads."""


@dataclass(slots=True)
class Watching:
    """Does the steps of one watch.

    Args:
        start_reader: A function that gives a job, by its name, to a process that reads it.
        jobs_kept: The number of its jobs that are kept when they are over, and that failed.
    """

    client: Redis
    settings: Settings
    watch: BackfillWatch
    start_reader: Callable[[str], Reader]
    jobs_kept: int = JOBS_KEPT
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    store: WatchStore = field(init=False)
    jobs: JobStore = field(init=False)

    def __post_init__(self) -> None:
        """Open the stores."""
        self.store = WatchStore(self.client, self.watch.name)
        self.jobs = JobStore(self.client)

    def step(self, *, is_over: Callable[[], bool] = lambda: False) -> Step:
        """Look after the job that is read, then look for new files; take one after the other.

        Raises:
            RedisUnavailable: A later step goes on where this one was.
        """
        ends_at = self.monotonic() + STEP_SECONDS
        taken = self.store.take()
        if taken is None:
            return Step("another step of it is under way", taken=False)
        state, now_ms = taken
        try:
            return self._step(state, now_ms, lambda: self.monotonic() > ends_at or is_over())
        except LeaseLost as error:
            return Step(error.message, taken=False)

    def _step(self, state: WatchState, now_ms: int, is_over: Callable[[], bool]) -> Step:
        if state.next_ms > now_ms:
            self.store.save(state, ends=True)
            return Step("nothing is due")
        try:
            step = self._go_on(state, is_over)
        except (RedisUnavailable, LeaseLost):
            raise
        except SegrelayError as error:
            step = self._note_failure(state, error)
        else:
            if state.failures and state.starts < _STARTS_IN_VAIN:
                LOG.info("watch.goes_on", watch=self.watch.name, after=state.problem)
                state.failures, state.failing_since_ms, state.problem = 0, 0, ""
        state.next_ms = self.store.now_ms() + round(1_000 * step.wait_seconds)
        self.store.save(state, ends=True)
        return step

    def _note_failure(self, state: WatchState, error: SegrelayError) -> Step:
        state.failures, state.problem = state.failures + 1, error.message
        state.failing_since_ms = state.failing_since_ms or self.store.now_ms()
        wait = min(self.watch.every_seconds, wait_seconds(state.failures))
        LOG.warning(
            "watch.waits", watch=self.watch.name, failures=state.failures, reason=error.message
        )
        return Step(error.message, wait_seconds=wait)

    def _go_on(self, state: WatchState, is_over: Callable[[], bool]) -> Step:
        listing: Mapping[str, Found] | None = None
        while True:
            if state.job and not self._follow(state, is_over):
                return Step(state.line(), wait_seconds=READ_AGAIN_SECONDS)
            if listing is None:
                listing = listing_of(self._place())
                state.looked_ms = self.store.now_ms()
                if state.source != self.watch.source:
                    self._begin(state, listing)
            if not self._take_next(state, listing, is_over):
                wait = READ_AGAIN_SECONDS if is_over() else self._until_next_look(state)
                return Step(state.line(), wait_seconds=min(wait, self.watch.every_seconds))
            if is_over():
                return Step(state.line(), more=True)

    def _place(self) -> str:
        source = self.watch.source
        if is_remote(source) or source.startswith("~"):
            return source
        place = str(self.settings.folder / source)
        return f"{place}/" if source.endswith("/") else place

    def _begin(self, state: WatchState, listing: Mapping[str, Found]) -> None:
        """Note the files of the first look, at the source that is configured now."""
        versions = [Version.of(file, found) for file, found in listing.items()]
        left = versions if self.watch.existing == "skip" else []
        state.source, state.since_ms = self.watch.source, state.looked_ms
        state.existing, state.steady, state.refused = len(left), {}, {}
        self.store.begin(state, left)
        LOG.info("watch.begun", watch=self.watch.name, source=state.source, left_alone=len(left))

    def _take_next(
        self, state: WatchState, listing: Mapping[str, Found], is_over: Callable[[], bool]
    ) -> bool:
        """Begin the job of the next file; return whether there was one.

        Files that were refused come last, the one first that was tried longest ago.
        """
        new = {one.file: one for one in self.store.find_new(listing, state)}
        state.waiting = len(new)
        state.refused = {
            file: one
            for file, one in state.refused.items()
            if file in new and new[file].print == one[0]
        }
        first = [one for one in new.values() if one.file not in state.refused]
        for version in [*self._steady(state, first), *map(new.__getitem__, list(state.refused))]:
            if self._begin_job(state, version, first):
                return True
            if is_over():
                break
        return False

    def _steady(self, state: WatchState, new: Sequence[Version]) -> list[Version]:
        """Return the files that have stayed the same for long enough; objects appear as a whole."""
        if is_remote(self.watch.source):
            return list(new)
        now_ms = self.store.now_ms()
        steady = {}
        for one in new[:_MOST_NOTED]:
            known, since_ms = state.steady.get(one.file, ("", now_ms))
            steady[one.file] = one.print, min(since_ms, now_ms) if known == one.print else now_ms
        state.steady = steady
        settle_ms = 1_000 * self.watch.settle_seconds
        return [
            one for one in new if one.file in steady and now_ms - steady[one.file][1] >= settle_ms
        ]

    def _until_next_look(self, state: WatchState) -> float:
        now_ms = self.store.now_ms()
        settle_ms = 1_000 * self.watch.settle_seconds
        waits = [since_ms + settle_ms - now_ms for _, since_ms in state.steady.values()]
        soon = [max(1_000.0 * _LOOK_SECONDS, wait) / 1_000 for wait in waits if wait > 0]
        return min(self.watch.every_seconds, *soon) if soon else self.watch.every_seconds

    def _begin_job(self, state: WatchState, version: Version, waiting: Sequence[Version]) -> bool:
        """Take a version and begin its job; return whether that was done."""
        file = version.file
        try:
            with self._kept_locked(state):
                spec = self._spec(state, file)
                found = look_at_file(file)
        except (UsageWrong, SourceDamaged) as error:
            self._refuse(state, version, error.message)
            return False
        if found is None or Version.of(file, found) != version:
            return False  # the next look finds what it is now
        after = replace(
            state,
            taken=state.taken + 1,
            job=spec.name,
            file=file,
            spec=spec.dumps().decode(),
            phase="reading",
            starts=0,
            position=0,
            start_at_ms=0,
            waiting=state.waiting - 1,
            steady={name: one for name, one in state.steady.items() if name != file},
            refused={name: one for name, one in state.refused.items() if name != file},
        )
        if not self.store.begin_job(after, version, [one for one in waiting if one != version]):
            return False
        for each in fields(after):
            setattr(state, each.name, getattr(after, each.name))
        LOG.info("watch.took", watch=self.watch.name, job=spec.name, file=file)
        return True

    @contextmanager
    def _kept_locked(self, state: WatchState) -> Iterator[None]:
        """Keep the lock while a file is read once to know it again, which may take minutes."""
        ends = threading.Event()

        def hold() -> None:
            with suppress(SegrelayError):  # what is written next is refused, if that matters
                while not ends.wait(_HOLD_SECONDS):
                    self.store.save(state)

        holding = threading.Thread(target=hold, daemon=True)
        holding.start()
        try:
            yield
        finally:
            ends.set()
            holding.join()

    def _refuse(self, state: WatchState, version: Version, why: str) -> None:
        if state.refused.pop(version.file, None) != (version.print, why):
            LOG.error("watch.refused", watch=self.watch.name, file=version.file, reason=why)
        if len(state.refused) < _MOST_NOTED:
            state.refused[version.file] = version.print, why

    def _spec(self, state: WatchState, file: str) -> Spec:
        wanted = self.watch
        options = RowOptions(
            sources=[file],
            audience=wanted.audience,
            audience_id=wanted.audience_id,
            on=wanted.on,
            as_of=wanted.as_of,
            trigger=list(wanted.triggers),
            columns=",".join(wanted.columns),
            hooks=wanted.hooks,
            again=wanted.again,
            older_than_ledger=wanted.older_than_ledger,
        )
        name = self.jobs.free_name(f"{wanted.name}-{at}" for at in count(state.taken + 1))
        spec = spec_of(options, self.settings, self.client, name=name)
        refuse_forgotten_rows(spec, self.settings, 1_000 * self.jobs.now_ms())
        return replace(spec, watch=wanted.name)

    def _follow(self, state: WatchState, is_over: Callable[[], bool]) -> bool:
        """See that the job is read; return whether it is over, so that the next may begin."""
        if state.spec:
            self._create(state)
        reader: Reader | None = None
        while True:
            has_ended = reader is not None and not reader.is_alive()
            job = self.jobs.find(state.job)
            state.phase = job.phase if job else "aborted"
            if job is None or job.phase in _GOES_ON:
                LOG.info("watch.read", watch=self.watch.name, job=state.job, phase=state.phase)
                state.job, state.starts = "", 0
                self._forget_jobs()
                return True
            if job.tally.position > state.position:
                state.position, state.starts, state.start_at_ms = job.tally.position, 0, 0
            if job.phase != "reading" or has_ended or (reader and is_over()):
                return False
            if reader is None:
                reader = None if job.claimed else self._start(state, job)
                if reader is None:
                    return False
            self.sleep(_LOOK_SECONDS)

    def _forget_jobs(self) -> None:
        """Forget the oldest jobs of the watch that are over, and of which nothing is left to do."""
        found = self.jobs.found(self.jobs.names()).values()
        own = sorted(
            (job for job in found if job.spec.watch == self.watch.name),
            key=lambda job: job.spec.started_at,
        )
        for phases in ({"failed"}, {"read", "aborted"}):
            over = [job for job in own if job.phase in phases]
            for job in over[: -self.jobs_kept][:_FORGOTTEN_AT_ONCE]:
                if self.jobs.forget(job, all_partitions(self.client, self.settings)):
                    LOG.info("watch.forgot", watch=self.watch.name, job=job.spec.name)

    def _create(self, state: WatchState) -> None:
        """Create the job that was taken; nothing happens if it is there already."""
        self.store.save(state)  # nobody else has the watch: the job can't have been forgotten yet
        spec = Spec.loads(state.spec.encode())
        try:
            self.jobs.create(spec)
        except UsageWrong:
            found = self.jobs.find(spec.name)
            if found is None or found.spec != spec:  # there was one of this name meanwhile
                other = f"{spec.name}-{spec.digests[0][:8]}"
                state.job, state.spec = other, replace(spec, name=other).dumps().decode()
                self._create(state)
                return
        arguments = {"from": state.file, "watch": self.watch.name}
        act = Act("backfill start", "segrelay", spec.name, arguments=arguments, key=spec.name)
        note_act(self.client, act)
        state.spec = ""

    def _start(self, state: WatchState, job: Job) -> Reader | None:
        """Start a reader, unless the last one has just ended; then None.

        Raises:
            SourceUnavailable: The last ones ended before they came forward; the message says why.
        """
        now_ms = self.store.now_ms()
        if now_ms < state.start_at_ms <= now_ms + 1_000 * wait_seconds(state.starts):
            if state.starts < _STARTS_IN_VAIN:
                return None
            raise SourceUnavailable(
                f"Job '{state.job}' does not come forward: "
                + (job.problem or "its reader ends before its time; see the workers' logs.")
            )
        routing = routing_digest(self.settings)
        if job.spec.routing != routing:  # its rows become other deliveries: all are read anew
            anew = replace(job.spec, routing=routing, attempt=job.spec.attempt + 1)
            self.jobs.resume(state.job, anew)
            state.position = 0
        state.starts += 1
        state.start_at_ms = now_ms + round(1_000 * wait_seconds(state.starts))
        self.store.save(state)
        return self.start_reader(state.job)


_readers: Final[list[JobReader]] = []
"""The processes that read jobs for this one; a reader ends when it is dropped from here."""


def watching_for(client: Redis, settings: Settings, name: str) -> Watching:
    """Return a configured watch, ready to do steps.

    Raises:
        RedisUnavailable: Redis can't be asked.
        UsageWrong: There is no such watch.
    """
    watch = settings.backfill.watch.get(name)
    if watch is None:
        hint = did_you_mean(name, settings.backfill.watch) or "the configuration names none"
        raise UsageWrong(f"There is no [backfill.watch.{name}]: {hint}.")
    claim(client, settings)
    _readers[:] = [reader for reader in _readers if reader.is_alive()]

    def start(job: str) -> Reader:
        for reader in _readers:
            if reader.config == settings.source and reader.is_idle():
                return reader.read(job)
        _readers.append(JobReader(settings))
        return _readers[-1].read(job)

    return Watching(client, settings, watch, start)


@shared_task(name=WATCH_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def watch(self: Any, name: str) -> ResultLine:
    """Look after a watched place, and wake the next step."""
    return do_background_job(self.app.segrelay, BackgroundJob(WATCH_TASK, name), _step)


def _step(node: Turns, name: str, turn: Turn) -> tuple[str, bool]:
    step = watching_for(client_of(node), node.settings, name).step(is_over=turn.is_over)
    return step.line, step.more

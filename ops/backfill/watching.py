"""Watching a place for new files: a background job of the workers, one look after the other.

A look lists the place, and has each version of a file read that has no job yet, one after the
other. The job's name is made of the version, so the script that creates jobs decides that it is
read once. A process beside the worker's reads it, and ends with that one; where it ended before its
time, the next look has the job read on. A file of which no job can be made stays, and is tried
again with each look.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from celery import shared_task

from segrelay.ops.backfill.job_request import RowOptions, refuse_forgotten_rows, spec_of
from segrelay.ops.state.partitions import all_partitions
from segrelay.producer.backfill.jobs import Job, JobPhase, JobStore, WatchState, steps_of
from segrelay.producer.backfill.reading import JobReader
from segrelay.producer.publishing.drafting import routing_digest
from segrelay.producer.sources.opening import digest_of, listing_of, look_at_file
from segrelay.producer.sources.remote import FileState
from segrelay.producer.steps import STEP_SECONDS, Step, StepStore, wait_seconds
from segrelay.producer.tasks import client_of, do_background_job
from segrelay.worker.contract.celery import WATCH_TASK, BackgroundJob, ResultLine, Turn, Turns
from segrelay.worker.contract.printable import did_you_mean
from segrelay.worker.contract.redis.acts import Act, note_act
from segrelay.worker.contract.redis.claim import claim
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import BackfillWatch
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
START_MS: Final = 60_000
"""The ms that a reader has for claiming its job, before another one is started."""
_LOOK_SECONDS: Final = 0.1
_AS_OF_A_COMMAND: Final = ("audience", "audience_id", "on", "as_of", "hooks")
"""The options of a watch that are those of `segrelay backfill start`."""
_SECOND_NS: Final = 1_000_000_000
JOBS_KEPT: Final = 100
"""The jobs of a watch that are kept when they are over, and as many that failed."""
_GOES_ON: Final[frozenset[JobPhase]] = frozenset({"read", "failed", "aborted"})
"""The phases of a job after which the next file is taken."""


IsRead = Callable[[], bool]
"""A function that says whether another process still reads a job."""


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
    start_reader: Callable[[str], IsRead]
    jobs_kept: int = JOBS_KEPT
    monotonic: Callable[[], float] = time.monotonic
    steps: StepStore[WatchState] = field(init=False)
    jobs: JobStore = field(init=False)

    def __post_init__(self) -> None:
        self.steps = steps_of(self.client, self.watch.name)
        self.jobs = JobStore(self.client)

    def step(self, *, is_over: Callable[[], bool] = lambda: False) -> Step:
        """See that the job is read that is under way, and those of new files after it.

        Raises:
            RedisUnavailable: A later step goes on where this one was.
        """
        ends_at = self.monotonic() + STEP_SECONDS

        def work(state: WatchState, now_ms: int) -> Step:
            if state.next_ms <= now_ms:
                self._do(state, lambda: self.monotonic() > ends_at or is_over())
            self.steps.save(state, ends=True)
            return Step(state.line())

        return self.steps.step(work)

    def _do(self, state: WatchState, is_over: Callable[[], bool]) -> None:
        try:
            wait = self._look(state, is_over)
            state.failures, state.failing_since_ms, state.problem = 0, 0, ""
        except (RedisUnavailable, LeaseLost):
            raise
        except SegrelayError as error:
            state.failures, state.problem = state.failures + 1, error.message
            state.failing_since_ms = state.failing_since_ms or self.steps.now_ms()
            wait = min(self.watch.every_seconds, wait_seconds(state.failures))
            LOG.warning("watch.waits", watch=self.watch.name, reason=error.message)
        state.next_ms = self.steps.now_ms() + round(1_000 * wait)

    def _look(self, state: WatchState, is_over: Callable[[], bool]) -> float:
        """Have the files read that have no job yet; return the seconds until the next look."""
        for job in self._own_jobs():
            state.job = job.spec.name
            if not self._is_over(state, is_over):
                return READ_AGAIN_SECONDS
        source = self.watch.source
        if not (is_remote(source) or source.startswith("~")):
            source = f"{self.settings.folder / source}{'/' * source.endswith('/')}"
        listing = {self._job_of(*item): item for item in listing_of(source).items()}
        if state.source != self.watch.source:
            left = list(listing) if self.watch.existing == "skip" else []
            self.jobs.name_as_forgotten(left)
            state.source, state.existing = self.watch.source, len(left)
            LOG.info("watch.begun", watch=self.watch.name, left_alone=len(left))
        known = self.jobs.known(list(listing))
        new = {name: item for name, item in listing.items() if name not in known}
        waits = {name: self._settles_in(found) for name, (_, found) in new.items()}
        state.job, state.looked_ms, state.waiting = "", self.steps.now_ms(), len(new)
        refused, state.refused = state.refused, {}
        for name, (file, _) in new.items():
            if waits[name] <= 0 and self._begin(name, file, state.refused):
                state.job, state.waiting = name, state.waiting - 1
                if not self._is_over(state, is_over) or is_over():
                    return READ_AGAIN_SECONDS
        for file, why in state.refused.items() - refused.items():
            LOG.error("watch.refused", watch=self.watch.name, file=file, reason=why)
        state.job = ""
        self._forget_jobs()
        return min([self.watch.every_seconds, *(one for one in waits.values() if one > 0)])

    def _job_of(self, file: str, found: FileState) -> str:
        """Return the name of the job of a version of a file.

        An object may get its former content, and with it its former ETag, again. Of one object a
        bucket tells the time to the second, in a list more exactly.
        """
        version = f"{file}|{digest_of(file, found)}|{found.changed_ns // _SECOND_NS}"
        return f"{self.watch.name}-{hashlib.sha256(version.encode()).hexdigest()[:12]}"

    def _settles_in(self, found: FileState) -> float:
        """Return the seconds after which a file has not changed for long enough.

        Objects of buckets appear as a whole.
        """
        age = time.time() - found.changed_ns / _SECOND_NS
        settle = 0.0 if is_remote(self.watch.source) else self.watch.settle_seconds
        return settle - age if 0 <= age < settle else 0.0

    def _begin(self, name: str, file: str, refused: dict[str, str]) -> bool:
        """Create the job of a version; return whether that was done, and note why it can't be.

        Where another step has created the job meanwhile, the next look has it read.
        """
        wanted = self.watch
        options = RowOptions(
            sources=[file],
            trigger=list(wanted.triggers),
            columns=",".join(wanted.columns),
            **{name: getattr(wanted, name) for name in _AS_OF_A_COMMAND},
        )
        try:
            spec = spec_of(options, self.settings, self.client, name=name)
            refuse_forgotten_rows(spec, self.settings, 1_000 * self.jobs.now_ms())
        except (UsageWrong, SourceDamaged) as error:
            refused[file] = error.message
            return False
        found = look_at_file(file)
        if found is None or self._job_of(file, found) != name:
            return False  # the next look finds what it is now
        try:
            self.jobs.create(replace(spec, watch=wanted.name))
        except UsageWrong:
            return False
        arguments = {"from": file, "watch": wanted.name}
        note_act(
            self.client, Act("backfill start", "segrelay", name, arguments=arguments, key=name)
        )
        return True

    def _is_over(self, state: WatchState, is_over: Callable[[], bool]) -> bool:
        """Have the job read on; return whether it is over, so that the next may begin.

        Raises:
            SourceUnavailable: Its reader ended before its time; the message says why.
        """
        is_read: IsRead | None = None
        while True:
            has_ended = is_read is not None and not is_read()
            job = self.jobs.find(state.job)
            if job is None or job.phase in _GOES_ON:
                state.start_at_ms = 0
                return True
            if job.phase != "reading" or is_over():
                return False
            if has_ended:
                state.start_at_ms = 0
                why = job.problem or "its reader ends before its time; see the workers' logs."
                raise SourceUnavailable(f"Job '{state.job}' does not come forward: {why}")
            left_ms = state.start_at_ms - self.jobs.now_ms()
            if is_read is None and not job.claimed and not 0 < left_ms <= START_MS:
                state.start_at_ms = self.jobs.now_ms() + START_MS
                self.steps.save(state)
                self._read_anew(job)
                is_read = self.start_reader(state.job)
            time.sleep(_LOOK_SECONDS)

    def _read_anew(self, job: Job) -> None:
        """Begin a job again if its rows would become other deliveries than before."""
        routing = routing_digest(self.settings)
        if job.spec.routing != routing:
            anew = replace(job.spec, routing=routing, attempt=job.spec.attempt + 1)
            self.jobs.resume(job.spec.name, anew)

    def _own_jobs(self) -> list[Job]:
        """Return the jobs of the watch, the oldest first."""
        found = self.jobs.found(self.jobs.names()).values()
        own = [job for job in found if job.spec.watch == self.watch.name]
        return sorted(own, key=lambda job: job.spec.started_at)

    def _forget_jobs(self) -> None:
        """Forget the oldest jobs that are over, and of which nothing is left to do."""
        own = self._own_jobs()
        for phases in ({"failed"}, {"read", "aborted"}):
            over = [job for job in own if job.phase in phases]
            for job in over[: -self.jobs_kept]:
                self.jobs.forget(job, all_partitions(self.client, self.settings))


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
    for ended in [reader for reader in _readers if not reader.is_reading()]:
        ended.end()
        _readers.remove(ended)

    def start(job: str) -> IsRead:
        _readers.append(JobReader(settings, job))
        return _readers[-1].is_reading

    return Watching(client, settings, watch, start)


@shared_task(name=WATCH_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def watch(self: Any, name: str) -> ResultLine:
    """Look after a watched place, and wake the next step."""
    return do_background_job(self.app.segrelay, BackgroundJob(WATCH_TASK, name), _step)


def _step(node: Turns, name: str, turn: Turn) -> Step:
    return watching_for(client_of(node), node.settings, name).step(is_over=turn.is_over)

"""Reading a job's source: cut into blocks here, parsed and published by a process for each core.

The blocks of all sources are numbered, and are the same in every run if the sources can be read
twice. A block goes to the shard of its number; what a shard has published before is passed over.
The job is claimed all the while, so that nobody else reads it, and looked at once a second, so that
this process ends soon after an operator has paused or aborted it. That nothing of it is accepted
from then on does not depend on this look: see `jobs`.

This module is also a process that reads one job of a watch: `JobReader` starts it. It ends with the
reading, or soon after the other process has ended, which its standard input tells.
"""

from __future__ import annotations

import logging
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import structlog

from segrelay.producer.backfill.jobs import Job, JobPhase, JobStore, JobTally, Spec
from segrelay.producer.backfill.publishing import (
    STARTED_FROM,
    BlockPublished,
    Piece,
    deaf_to_interrupts,
    insisting,
    prepare_shards,
    publish_shard,
)
from segrelay.producer.events.payloads import RowForm, has_own_events
from segrelay.producer.lytics import audience_of, scan_rows
from segrelay.producer.sources.blocks import Block, blocks_of, grouped
from segrelay.producer.sources.opening import STANDARD_INPUT, Opened, opened
from segrelay.producer.wakeups import CeleryWaker
from segrelay.worker.contract.own_processes import own_module
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import Settings, load_settings
from segrelay.worker.contract.words import BACKFILL
from segrelay.worker.errors import (
    Bug,
    JobHeld,
    RedisUnavailable,
    SegrelayError,
    SourceChanged,
    SourceDamaged,
    SourceUnavailable,
    UsageWrong,
)
from segrelay.worker.logs import configure, log_bug


def pieces_of(spec: Spec, settings: Settings) -> Generator[Piece]:
    """Yield the blocks of all sources, numbered from 1.

    Raises:
        UsageWrong: A file is not what it was when the job began.
        SourceChanged: A file was written to while it was read.
        SourceDamaged: A file is not whole; its blocks up to there were yielded.
        LyticsUnavailable: A scan can't go on.
    """
    number = bytes_before = 0
    for name, digest in zip(spec.sources, spec.digests, strict=True):
        audience = audience_of(name)
        if audience:
            rows = scan_rows(settings, audience)
            for block in grouped(rows, spec.canary if number == 0 else 0):
                number += 1
                yield Piece(number, name, block, 0)
            continue
        with opened(name) as found:
            if digest and found.digest != digest:
                raise UsageWrong(
                    f"{name} has changed since job '{spec.name}' began: what was published is "
                    "counted in blocks of the old file. Start a new job for the new one; people "
                    "who are in both are delivered once."
                )
            first_rows = spec.canary if number == 0 else 0
            for block in _unchanged(found, spec, first_rows):
                if number == 0 and name == STANDARD_INPUT:
                    refuse_first_rows(name, block, spec.membership)
                number += 1
                yield Piece(number, name, block, bytes_before + found.read_bytes())
            bytes_before += found.size


def refuse_first_rows(name: str, block: Block | None, membership: RowForm | None) -> None:
    """Refuse a source without an audience whose first rows bring no events of their own.

    Raises:
        UsageWrong: None of them does.
    """
    if block is None or membership is not None:
        return
    rows = [row.value for row in block.payloads() if isinstance(row.value, dict | list)]
    profiles = [each for row in rows for each in (row if isinstance(row, list) else [row])]
    if not profiles or any(isinstance(p, dict) and has_own_events(p) for p in profiles):
        return
    raise UsageWrong(
        f"The rows of {name} are profiles without segment events: they do not say which audience "
        f"these people are in. Say it: `segrelay backfill start {name} --audience SLUG --as-of "
        "TIME` makes each a member as of that time; with `--on exit`, each has left."
    )


def _unchanged(file: Opened, spec: Spec, first_rows: int) -> Iterator[Block]:
    """Yield the blocks of a file as long as nobody writes to the file.

    Raises:
        SourceChanged: It was written to; no block that may hold something of both is yielded.
    """
    try:
        try:
            blocks = blocks_of(file, spec.columns, first_rows=first_rows)
            for block in blocks:
                file.refuse_change()
                yield block
        except SegrelayError:
            file.refuse_change()  # what is damaged may be damaged by that
            raise
        file.refuse_change()
    except SourceChanged as error:
        raise SourceChanged(
            f"{error.message} What job '{spec.name}' has read of it before is delivered; the job "
            "is not complete. Start a new job once the file is whole: people who are in both are "
            "delivered once."
        ) from error


_LOOK_SECONDS: Final = 1.0
_HEAR_SECONDS: Final = 0.2
_STOPPED: Final[tuple[JobPhase, ...]] = ("paused", "aborted")
_RENEWED_SECONDS: Final = 3.0
"""The seconds between two renewals of a reader's claim."""
_ON_THE_WAY: Final = 2
"""The number of blocks that a shard has at once: one that is published, and the next."""
_END_SECONDS: Final = 130.0
_LAST_WORDS_SECONDS: Final = 5.0
"""The seconds for which a reader that stops waits for the blocks that are under way."""


ReadingWatcher = Callable[[JobTally, int, str], None]
"""A function that is called whenever a block was published, and while none can be.

Its arguments are what is published over all shards, the bytes that were read of the files as they
lie on the disk, and why nothing is published now, "" = it is.
"""


def read_job(
    store: JobStore,
    job: Job,
    settings: Settings,
    watch: ReadingWatcher,
    *,
    is_told_to_stop: Callable[[], bool] = lambda: False,
) -> JobPhase:
    """Read a job's source to its end or that of its first rows, or until it is paused or aborted.

    Args:
        store: The store of jobs.
        job: The job; what an earlier run of it has published is passed over.
        settings: The configuration; the processes read its file themselves.
        watch: A function that is told of the progress.
        is_told_to_stop: A function that says whether to stop, asked after each block; blocks under
            way are published.

    Returns:
        The phase in which the job is now; `reading` if it was told to stop.

    Raises:
        JobHeld: Somebody else reads it.
        SourceUnavailable: There is no answer from where a file lies. The job can go on later, and
            has that as its problem.
        SourceChanged: A file was written to while it was read. The job is `failed` now, as with
            all that follows but Redis.
        SourceDamaged: A file is not whole; what was read of it is published.
        UsageWrong: A file is not what it was when the job began, or can't be read.
        RedisUnavailable: Redis was away for too long; what was published is safe.
    """
    name = job.spec.name
    with _claimed(store, job, watch) as (phase, epoch):
        if not epoch:
            return phase
        try:
            wait = _waiting(watch, job.tally)
            job = insisting(lambda: store.named(name), wait)
            insisting(lambda: store.close(name, epoch, store.partitions(settings)), wait)
            with ExitStack() as ending:
                shards = [
                    ending.enter_context(_started(settings.source, job.spec, epoch, number, tally))
                    for number, tally in enumerate(job.tallies)
                ]
                return _JobReader(
                    store, job.spec, settings, epoch, shards, watch, is_told_to_stop
                ).run()
        except JobHeld:
            stopped = store.phase(name)
            if stopped not in _STOPPED:
                raise
            return stopped
        except RedisUnavailable:
            raise
        except SegrelayError as error:
            left: JobPhase = "reading" if isinstance(error, SourceUnavailable) else "failed"
            with suppress(SegrelayError):
                store.conclude(name, epoch, left, error.message)
            raise


@dataclass(slots=True)
class _Shard:
    """A process that publishes one shard, as the reader sees it.

    Args:
        on_the_way: number of blocks that it has and has not published yet.
    """

    number: int
    process: BaseProcess
    connection: Connection
    tally: JobTally
    on_the_way: int = 0


@dataclass(slots=True)
class _JobReader:
    store: JobStore
    spec: Spec
    settings: Settings
    epoch: int
    shards: list[_Shard]
    watch: ReadingWatcher
    is_told_to_stop: Callable[[], bool]
    _waker: CeleryWaker = field(init=False)
    _looked_at: float = field(default_factory=time.monotonic)
    _bytes_read: int = 0
    _waiting_for: str = ""
    _phase: JobPhase = "reading"

    def __post_init__(self) -> None:
        self._waker = CeleryWaker(self.settings)

    def run(self) -> JobPhase:
        damage: SourceDamaged | None = None
        ends: JobPhase = "read"
        try:
            for piece in pieces_of(self.spec, self.settings):
                shard = self.shards[piece.number % len(self.shards)]
                if piece.number > shard.tally.position:
                    while shard.on_the_way >= _ON_THE_WAY and not self._stops():
                        self._hear()
                if self._stops():
                    return self._stop()
                if piece.number <= shard.tally.position:
                    continue
                self._send(shard, piece)
                if self.spec.canary and piece.number == 1:
                    ends = "canary"
                    break
        except SourceDamaged as error:
            damage = error
        while any(shard.on_the_way for shard in self.shards):
            if self._stops():
                return self._stop()
            self._hear()
        if damage:
            raise SourceDamaged(
                f"{damage.message} What job '{self.spec.name}' has read before is delivered; the "
                "job is not complete. Start a new job with the whole file: people who are in both "
                "are delivered once."
            ) from damage
        return insisting(
            lambda: self.store.conclude(self.spec.name, self.epoch, ends),
            _waiting(self.watch, self._tally()),
        )

    def _stops(self) -> bool:
        """Say whether a person has stopped the job, or this process."""
        self._look()
        return self._phase != "reading" or self.is_told_to_stop()

    def _stop(self) -> JobPhase:
        """Wait a moment for blocks that are under way, unless they wait; return the job's phase."""
        gives_up_at = time.monotonic() + _LAST_WORDS_SECONDS
        while any(shard.on_the_way for shard in self.shards):
            if self._waiting_for or time.monotonic() >= gives_up_at:
                break
            self._hear()
        return self._phase

    def _send(self, shard: _Shard, piece: Piece) -> None:
        try:
            shard.connection.send(piece)
        except OSError:
            while True:  # its last words say why it ended
                self._take_report(shard)
        shard.on_the_way += 1
        self._bytes_read = piece.bytes_read

    def _look(self) -> None:
        """Renew the claim, and learn in which phase the job is, once a second.

        While Redis is away nobody can take the job over; the shards say when it is too long.
        """
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        with suppress(RedisUnavailable):
            self._phase = self.store.renew(self.spec.name, self.epoch)

    def _hear(self) -> None:
        """Wait at most a moment for messages from the shards, and act on them."""
        by_connection = {shard.connection: shard for shard in self.shards}
        ready = multiprocessing.connection.wait(list(by_connection), _HEAR_SECONDS)
        for connection in ready:
            self._take_report(by_connection[connection])  # type: ignore[index] # one of ours
        self.watch(self._tally(), self._bytes_read, self._waiting_for)

    def _take_report(self, shard: _Shard) -> None:
        try:
            report = shard.connection.recv()
        except (EOFError, OSError):
            raise Bug(
                f"The process that publishes shard {shard.number} ended "
                f"(exit code {shard.process.exitcode}). `segrelay backfill resume "
                f"{self.spec.name}` goes on exactly where it stopped."
            ) from None
        match report:
            case BlockPublished(tally, woken):
                self._waker.wake(woken, queue=BACKFILL)
                shard.tally = tally
                shard.on_the_way -= 1
                self._waiting_for = ""
            case str():
                self._waiting_for = report
            case _:
                raise report

    def _tally(self) -> JobTally:
        return sum((shard.tally for shard in self.shards), JobTally())


def _waiting(watch: ReadingWatcher, tally: JobTally) -> Callable[[str], None]:
    def wait(message: str) -> None:
        watch(tally, 0, message)
        time.sleep(_HEAR_SECONDS)

    return wait


@contextmanager
def _claimed(store: JobStore, job: Job, watch: ReadingWatcher) -> Iterator[tuple[JobPhase, int]]:
    """Claim the job, and yield its phase and the reader's epoch: 0 = the job is not to be read.

    The claim of a reader that was killed is waited for.
    """
    name = job.spec.name
    wait = _waiting(watch, job.tally)
    phase, epoch, left_seconds = insisting(lambda: store.take(name), wait)
    while left_seconds:
        watch(job.tally, 0, "another reader had it a moment ago")
        asked_at = time.monotonic()
        time.sleep(min(left_seconds, _RENEWED_SECONDS))
        before = left_seconds - (time.monotonic() - asked_at)
        phase, epoch, left_seconds = insisting(lambda: store.take(name), wait)
        if left_seconds > before + _LOOK_SECONDS / 2:
            raise JobHeld(f"Job '{name}' is being read by another process.")
    try:
        yield phase, epoch
    finally:
        if epoch:
            with suppress(SegrelayError):
                store.release(name, epoch)


@contextmanager
def _started(
    config: Path, spec: Spec, epoch: int, number: int, tally: JobTally
) -> Iterator[_Shard]:
    """Start the process of a shard, and end it at the end of the `with` block.

    If blocks of it are still under way by then, it gives up those that have to wait. A process that
    does not end by itself is killed.
    """
    ours, theirs = STARTED_FROM.Pipe()
    what = (theirs, config, spec, epoch, number, tally)
    process = STARTED_FROM.Process(target=publish_shard, args=what, daemon=True)
    with deaf_to_interrupts():
        process.start()
    theirs.close()
    shard = _Shard(number, process, ours, replace(tally))
    try:
        yield shard
    finally:
        if not shard.on_the_way:
            with suppress(OSError):
                ours.send(None)
        ours.close()
        process.join(_END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


_LOG: Final = structlog.get_logger()
_LAST_SECONDS: Final = 10.0
"""The seconds within which a reader has ended after the process that started it."""
_INPUT: Final = 0


class JobReader:
    """A process that reads a job; it ends when this object is gone, or the process that has it."""

    def __init__(self, settings: Settings, job: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            own_module(__name__, str(settings.source), job),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    def is_reading(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """End the reading, and wait until the process has ended; the job can go on later."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _read(config: Path, name: str) -> None:
    """Read a job to its end, or until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    configure(logging.INFO)
    ends = threading.Event()
    prepare_shards()
    threading.Thread(target=_hear, args=(ends,), daemon=True).start()
    try:
        settings = load_settings(config)
        redis = settings.redis
        with closing(connect(resolve_url(redis), replicas=redis.replicas)) as client:
            store = JobStore(client)
            job = store.named(name)
            read_job(store, job, settings, lambda *_: None, is_told_to_stop=ends.is_set)
    except SegrelayError as error:
        _LOG.warning("backfill.reading_ended", job=name, reason=error.message)
    except Exception as error:  # noqa: BLE001 - this is the edge; its message may hold a profile
        log_bug(error, "backfill.reading_failed", job=name)


def _hear(ends: threading.Event) -> None:
    """End this process soon after standard input has ended.

    What it has not published by then is read again when the job goes on.
    """
    while os.read(_INPUT, 1):  # sys.stdin has a lock; a process that holds it can't end
        pass
    ends.set()
    time.sleep(_LAST_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    _read(Path(sys.argv[1]), sys.argv[2])

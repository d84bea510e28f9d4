"""Reading a job's source: cut into blocks here, parsed and published by a process for each core.

A block goes to the stripe of its number; what a stripe has published before is passed over. The job
is claimed all the while, so that nobody else reads it, and looked at once a second, so that a
person can pause or abort it from another terminal.
"""

from __future__ import annotations

import multiprocessing.connection
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from producer.backfill.job import Job, JobBook, JobPhase, JobTally, Spec, new_token
from producer.backfill.publishing import (
    STARTED_FROM,
    BlockPublished,
    StripeFailed,
    StripeWaits,
    Task,
    publish_stripe,
)
from producer.doorbell import BackgroundDoorbell, Doorbell
from producer.sources.blocks import Block, blocks_of, grouped
from producer.sources.opening import opened
from producer.sources.scans import audience_of, scan_rows
from worker.contract.settings import Settings
from worker.contract.words import BACKFILL
from worker.errors import Bug, JobHeld, RedisUnavailable, SegrelayError, UsageWrong

_LOOK_SECONDS: Final = 1.0
_RENEWED_SECONDS: Final = 3.0
"""In which a reader that lives has renewed its claim."""
_ON_THE_WAY: Final = 2
"""Blocks that a stripe has at once: one that is published, and the next."""
_END_SECONDS: Final = 130.0


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a reading is.

    Args:
        tally: What is published, over all stripes.
        bytes_read: Of the files as they lie on the disk.
        waiting_for: Why nothing is published now; "" = it is.
    """

    tally: JobTally
    bytes_read: int = 0
    waiting_for: str = ""


ReadingWatcher = Callable[[Reading], None]
"""Called whenever something was published, and while nothing can be."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A block with its place in the whole job."""

    number: int
    file: str
    block: Block
    bytes_read: int


def read_job(
    book: JobBook,
    job: Job,
    settings: Settings,
    watch: ReadingWatcher,
    *,
    is_told_to_stop: Callable[[], bool] = lambda: False,
) -> JobPhase:
    """Read a job's source to its end, or until it is paused, aborted, or at its canary.

    Args:
        book: Where jobs are kept.
        job: What an earlier run has published is passed over.
        settings: The configuration; the processes read its file themselves.
        watch: Told of the progress.
        is_told_to_stop: Looked at after each block; what is under way is published.

    Returns:
        The phase in which the job is now; `reading` if it was told to stop.

    Raises:
        JobHeld: Somebody else reads it.
        UsageWrong: A file is not what it was when the job began, or can't be read.
        RedisUnavailable: Redis was away for too long; what was published is safe.
    """
    with _claimed(book, job, watch) as token, ExitStack() as ending:
        job = book.named(job.spec.name)  # it may have gone on while its claim was waited for
        if job.phase != "reading":
            return job.phase
        stripes = [
            ending.enter_context(_started(settings.source, job.spec, number, tally))
            for number, tally in enumerate(job.tallies)
        ]
        pieces = pieces_of(job.spec, settings)
        bell = BackgroundDoorbell(settings)
        return _JobReader(
            book, job.spec, pieces, token, stripes, bell, watch, is_told_to_stop
        ).run()


@dataclass(slots=True)
class _Stripe:
    """One process that publishes, seen from here."""

    number: int
    process: BaseProcess
    connection: Connection
    tally: JobTally
    on_the_way: int = 0


@dataclass(slots=True)
class _JobReader:
    book: JobBook
    spec: Spec
    pieces: Iterator[Piece]
    token: str
    stripes: list[_Stripe]
    doorbell: Doorbell
    watch: ReadingWatcher
    is_told_to_stop: Callable[[], bool]
    _looked_at: float = field(default_factory=time.monotonic)
    _bytes_read: int = 0
    _waiting_for: str = ""

    def run(self) -> JobPhase:
        phase: JobPhase = "read"
        for piece in self.pieces:
            stripe = self.stripes[piece.number % len(self.stripes)]
            if piece.number <= stripe.tally.position:
                continue
            while stripe.on_the_way >= _ON_THE_WAY:
                self._hear()
            self._send(stripe, piece)
            phase = self._next_phase(piece)
            if phase != "read":
                break
        while any(stripe.on_the_way for stripe in self.stripes):
            self._hear()
        if phase in ("read", "canary"):
            self.book.set_phase(self.spec.name, phase)
        return phase

    def _send(self, stripe: _Stripe, piece: Piece) -> None:
        try:
            stripe.connection.send(Task(piece.number, piece.file, piece.block))
        except OSError:
            while True:  # its last words say why it ended
                self._obey(stripe)
        stripe.on_the_way += 1
        self._bytes_read = piece.bytes_read

    def _next_phase(self, piece: Piece) -> JobPhase:
        """Return `read` to go on, or the phase in which the reading stops behind this block."""
        if self.is_told_to_stop():
            return "reading"
        wanted = self._look()
        if wanted:
            return wanted
        return "canary" if self.spec.canary and piece.number == 1 else "read"

    def _look(self) -> JobPhase | None:
        """Keep the claim; returns what a person wants of the job instead of going on.

        While Redis is away nobody can take the job over; the stripes say when it is too long.
        """
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return None
        self._looked_at = time.monotonic()
        try:
            held = self.book.claim(self.spec.name, self.token)
            phase = self.book.phase(self.spec.name)
        except RedisUnavailable:
            return None
        if held:
            raise JobHeld(f"Job '{self.spec.name}' was taken over by another reader.")
        return None if phase == "reading" else phase

    def _hear(self) -> None:
        """Wait until a stripe says something, and keep the claim meanwhile."""
        by_connection = {stripe.connection: stripe for stripe in self.stripes}
        ready = multiprocessing.connection.wait(list(by_connection), _LOOK_SECONDS)
        for connection in ready:
            self._obey(by_connection[connection])  # type: ignore[index] # one of ours
        self._look()
        self.watch(Reading(self._tally(), self._bytes_read, self._waiting_for))

    def _obey(self, stripe: _Stripe) -> None:
        try:
            word = stripe.connection.recv()
        except (EOFError, OSError):
            raise Bug(
                f"The process that publishes stripe {stripe.number} ended "
                f"(exit code {stripe.process.exitcode}). `segrelay backfill resume "
                f"{self.spec.name}` goes on exactly where it stopped."
            ) from None
        match word:
            case BlockPublished(_, tally, rang):
                for destination, partition in rang:
                    self.doorbell.ring(destination, partition, queue=BACKFILL)
                stripe.tally = tally
                stripe.on_the_way -= 1
                self._waiting_for = ""
            case StripeWaits(message):
                self._waiting_for = message
            case StripeFailed(error):
                raise error

    def _tally(self) -> JobTally:
        return sum((stripe.tally for stripe in self.stripes), JobTally())


def pieces_of(spec: Spec, settings: Settings) -> Generator[Piece]:
    """Yield the blocks of all sources, numbered from 1.

    Raises:
        UsageWrong: A file is not what it was when the job began.
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
        with opened(name, with_digest=bool(digest)) as found:
            if digest and found.digest != digest:
                raise UsageWrong(
                    f"{name} has changed since job '{spec.name}' began: what was published is "
                    "counted in blocks of the old file. Start a new job for the new one; people "
                    "who are in both are delivered once."
                )
            first_rows = spec.canary if number == 0 else 0
            for block in blocks_of(found, spec.columns, first_rows=first_rows):
                number += 1
                yield Piece(number, name, block, bytes_before + found.read_bytes())
            bytes_before += found.size


@contextmanager
def _claimed(book: JobBook, job: Job, watch: ReadingWatcher) -> Iterator[str]:
    """Claim the job; the claim of a reader that was killed is waited for."""
    name, token = job.spec.name, new_token()
    left = book.claim(name, token)
    while left:
        watch(Reading(job.tally, waiting_for="another reader had it a moment ago"))
        asked_at = time.monotonic()
        time.sleep(min(left, _RENEWED_SECONDS))
        before, left = left - (time.monotonic() - asked_at), book.claim(name, token)
        if left > before + _LOOK_SECONDS / 2:
            raise JobHeld(f"Job '{name}' is being read by another process.")
    try:
        yield token
    finally:
        with suppress(SegrelayError):
            book.release(name)


@contextmanager
def _started(config: Path, spec: Spec, number: int, tally: JobTally) -> Iterator[_Stripe]:
    """Start the process of one stripe; it ends when nothing more can come."""
    ours, theirs = STARTED_FROM.Pipe()
    process = STARTED_FROM.Process(
        target=publish_stripe, args=(theirs, config, spec, number, tally), daemon=True
    )
    with _deaf_to_interrupts():
        process.start()
    theirs.close()
    try:
        yield _Stripe(number, process, ours, replace(tally))
    finally:
        with suppress(OSError):
            ours.send(None)
        ours.close()
        process.join(_END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Block Ctrl-C: what is started here inherits that, from its first instruction on."""
    resource_tracker.ensure_running()  # it would lift the block if it began within it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

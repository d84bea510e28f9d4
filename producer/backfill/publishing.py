"""The process that publishes one shard of a job and reports on each of its blocks.

It is forked from a process that has loaded this module and nothing else (`STARTED_FROM`), hears
nothing of Ctrl-C, which whoever starts it blocks, and ends when that one does. While Redis writes
a block to its disk, the next one is parsed and drafted.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from segrelay.producer.backfill.jobs import JobStore, JobTally, Spec, noting
from segrelay.producer.publish import Publisher, in_bulk
from segrelay.producer.publishing.published import Draft, JobPosition, PartitionAddress, Published
from segrelay.producer.sources.blocks import Block
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.redis.url import Answered, repeat_until_confirmed
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.words import lane_of_job
from segrelay.worker.errors import SegrelayError

AWAY_SECONDS: Final = 120.0
"""The longest wait for a Redis that is away or full, in seconds; then the reading ends."""
_LOOK_SECONDS: Final = 0.2
_NICENESS: Final = 10
"""The niceness of a shard's process: where processors are scarce, workers go before reading."""
_TOLD_AGAIN_SECONDS: Final = 5.0
STARTED_FROM: Final = multiprocessing.get_context("forkserver")
"""The way to start processes: from one that has loaded this module, whose memory they share."""
STARTED_FROM.set_forkserver_preload([__name__])


def prepare_shards() -> None:
    """Start the process that shards are forked from: it loads while this one does other work."""
    with deaf_to_interrupts():
        forkserver.ensure_running()


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Block Ctrl-C; processes that are started meanwhile inherit that from the beginning."""
    resource_tracker.ensure_running()  # it would lift the block if it began within it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True, slots=True)
class Piece:
    """A block of one of a job's sources, to be published.

    Args:
        number: position in the job, from 1.
        file: the source, as it was named.
        bytes_read: bytes of all sources that were read up to its end.
    """

    number: int
    file: str
    block: Block
    bytes_read: int


@dataclass(frozen=True, slots=True)
class BlockPublished:
    """A block was published.

    Args:
        tally: the tally of the shard up to this block.
        woken: the partitions that have something to drain, which the reader wakes.
    """

    tally: JobTally
    woken: tuple[PartitionAddress, ...]


ShardReport = BlockPublished | str | SegrelayError
"""A message of a shard to its reader: a published block, why it waits, or why it can't go on."""


def publish_shard(  # noqa: PLR0917 - what a process is started with
    connection: Connection, config: Path, spec: Spec, epoch: int, shard: int, tally: JobTally
) -> None:
    """Publish the pieces that arrive, until there are no more."""
    os.nice(_NICENESS)
    gc.freeze()  # what is shared with the other shards stays shared
    settings = load_settings(config)
    redis = settings.redis
    with in_bulk(), closing(connect(resolve_url(redis), replicas=redis.replicas)) as client:
        publisher = Publisher(client, settings, waker=SilentWaker())
        store = JobStore(client)
        _Publishing(connection, publisher, store, spec, epoch, shard, tally).run()


_Drafted = tuple[int, Draft]
"""The number of a block, and its deliveries."""


@dataclass(slots=True)
class _Publishing:
    """Publishes one shard.

    Args:
        connection: The connection to the process that reads the source.
        epoch: The epoch of that reader.
        tally: The counts of what an earlier run of the shard has published.
    """

    connection: Connection
    publisher: Publisher
    store: JobStore
    spec: Spec
    epoch: int
    shard: int
    tally: JobTally
    _pieces: SimpleQueue[Piece | None] = field(default_factory=SimpleQueue)
    _speaks: threading.Lock = field(default_factory=threading.Lock)
    _told_at: float = -_TOLD_AGAIN_SECONDS
    _is_noted: bool = True
    _ends: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Publish the pieces that arrive until the reader has ended."""
        threading.Thread(target=self._receive, daemon=True).start()
        with ThreadPoolExecutor(1) as ahead:
            try:
                self._publish_all(ahead)
            except SegrelayError as error:
                with suppress(SegrelayError):
                    self._note()
                self._report(error)
            finally:
                self._ends.set()
                self._pieces.put(None)

    def _receive(self) -> None:
        """Queue pieces as they arrive, so that the sender never waits."""
        try:
            while (piece := self.connection.recv()) is not None:
                self._pieces.put(piece)
        except (EOFError, OSError):
            self._ends.set()
        finally:
            self._pieces.put(None)

    def _publish_all(self, ahead: ThreadPoolExecutor) -> None:
        coming = ahead.submit(self._next)
        while (drafted := coming.result()) is not None:
            coming = ahead.submit(self._next)
            published = self._publish(drafted)
            if not coming.done():
                insisting(self._note, self._wait)
            self._report(published)
        insisting(self._note, self._wait)

    def _report(self, report: ShardReport) -> None:
        """Send a message to the reader, if it still runs."""
        with self._speaks, suppress(OSError):
            self.connection.send(report)

    def _next(self) -> _Drafted | None:
        """Draft the next block that arrives; None when there are no more."""
        piece = self._pieces.get()
        if piece is None:
            return None
        rows = piece.block.payloads
        draft = insisting(
            lambda: self.publisher.draft(rows(), self.spec.membership, self.spec.options),
            self._wait,
        )
        return piece.number, draft

    def _publish(self, drafted: _Drafted) -> BlockPublished:
        """Publish one block, again and again until Redis has it.

        How far the shard is then is written down with its next block, or by `_note`.

        Raises:
            RedisUnavailable: Redis was away or full for too long.
        """
        number, draft = drafted
        published = insisting(lambda: self._write(number, draft), self._wait)
        self.tally += JobTally(
            number,
            published.payloads,
            published.events,
            published.accepted + published.repeated,
            published.unmatched,
            published.refused,
        )
        self._is_noted = False
        return BlockPublished(self.tally, published.woken)

    def _note(self) -> None:
        """Record how far the shard has come, unless that is done."""
        if not self._is_noted:
            self.store.note(self.spec, self.epoch, self.shard, self.tally)
            self._is_noted = True

    def _write(self, number: int, draft: Draft) -> Published:
        self._await_capacity()
        source = self.spec.source_of(self.shard)
        noted = noting(self.spec, self.epoch, self.shard, self.tally)
        progress = JobPosition(self.spec.name, number, source, noted, self.epoch)
        return self.publisher.write_draft(draft, progress)

    def _await_capacity(self) -> None:
        """Wait without a limit until the backfill lane has room; workers make it by draining."""
        while full := self.publisher.why_full(lane_of_job(self.spec.name)):
            self._note()
            self._wait(full)

    def _wait(self, why: str) -> None:
        """Wait a moment; every few seconds, tell the reader the reason.

        If whoever reads has ended or is told to stop, end too: what is not published yet is read
        again when the job goes on.
        """
        if time.monotonic() - self._told_at >= _TOLD_AGAIN_SECONDS:
            self._told_at = time.monotonic()
            self._report(why)
        reader = multiprocessing.parent_process()
        assert reader is not None, "shards have processes of their own"
        if self._ends.wait(_LOOK_SECONDS) or not reader.is_alive():
            raise SystemExit


def insisting(action: Callable[[], Answered], wait: Callable[[str], None]) -> Answered:
    """Repeat an action of a reading until Redis has confirmed it; see `repeat_until_confirmed`.

    Raises:
        RedisUnavailable: It was away for too long.
    """
    return repeat_until_confirmed(action, wait, away_seconds=AWAY_SECONDS)

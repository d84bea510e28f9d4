"""The process that publishes one shard of a job and reports on each of its blocks.

It is forked from a process that has loaded this module and nothing else (`STARTED_FROM`), hears
nothing of Ctrl-C, which whoever starts it blocks, and ends when that one does. While Redis writes
a block to its disk, the next one is parsed and drafted.
"""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple

from segrelay.producer.backfill.jobs import BAD_ROW_BYTES, BadRow, JobStore, JobTally, Spec, noting
from segrelay.producer.events.payloads import Payload, text_of
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import Draft, PartitionAddress, Published, RefusedAt
from segrelay.producer.publishing.writing import NoRoom
from segrelay.producer.sources.blocks import Block
from segrelay.producer.wakeups import SilentWaker
from segrelay.worker.contract.patience import Answered, repeat_until_confirmed
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.words import lane_of_job
from segrelay.worker.errors import SegrelayError

AWAY_SECONDS: Final = 120.0
"""The longest wait for a Redis that is away or full, in seconds; then the reading ends."""
_LOOK_SECONDS: Final = 0.2
_COLLECT_AFTER: Final = (100_000, 20, 50)
"""Thresholds of the garbage collector while rows are read: many objects without cycles."""
_SWITCHED_SECONDS: Final = 0.000_5
"""The seconds between two switches of threads: a block that is written goes before one that is
drafted, which would not yield for 5 ms otherwise."""
_TOLD_AGAIN_SECONDS: Final = 5.0
STARTED_FROM: Final = multiprocessing.get_context("forkserver")
"""The way to start processes: they share the memory of the modules, which are loaded once."""
STARTED_FROM.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True)
class Task:
    """A block to publish."""

    number: int
    file: str
    block: Block


@dataclass(frozen=True, slots=True)
class BlockPublished:
    """A block was published.

    Args:
        tally: Of the shard, up to this block.
        woken: Destinations and partitions that nobody has woken yet: whoever reads wakes all.
    """

    number: int
    tally: JobTally
    woken: tuple[PartitionAddress, ...]


@dataclass(frozen=True, slots=True)
class ShardWaits:
    """The shard of a backfill has to wait: nothing can be published now."""

    message: str


@dataclass(frozen=True, slots=True)
class ShardFailed:
    """The shard can't go on; what it published is safe."""

    error: SegrelayError


Word = BlockPublished | ShardWaits | ShardFailed


def publish_shard(  # noqa: PLR0917 - what a process is started with
    connection: Connection, config: Path, spec: Spec, epoch: int, shard: int, tally: JobTally
) -> None:
    """Publish the tasks that arrive, until there are no more."""
    gc.freeze()  # what is shared with the other shards stays shared
    gc.set_threshold(*_COLLECT_AFTER)
    sys.setswitchinterval(_SWITCHED_SECONDS)
    settings = load_settings(config)
    redis = settings.redis
    with closing(connect(resolve_url(redis), replicas=redis.replicas)) as client:
        publisher = Publisher(client, settings, waker=SilentWaker())
        store = JobStore(client)
        publishing = Publishing(connection, publisher, store, spec, epoch, shard, tally)
        publishing.run()


class _Drafted(NamedTuple):
    """A block that was drafted."""

    number: int
    draft: Draft
    bad_rows: tuple[BadRow, ...]


@dataclass(slots=True)
class Publishing:
    """Publishes one shard.

    Args:
        connection: To whoever reads the source.
        epoch: Of that reader.
        tally: The counts of what an earlier run of the shard has published.
    """

    connection: Connection
    publisher: Publisher
    store: JobStore
    spec: Spec
    epoch: int
    shard: int
    tally: JobTally
    _tasks: SimpleQueue[Task | None] = field(default_factory=SimpleQueue)
    _speaks: threading.Lock = field(default_factory=threading.Lock)
    _told_at: float = -_TOLD_AGAIN_SECONDS
    _bad_rows: tuple[BadRow, ...] = ()
    _is_noted: bool = True
    _ends: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Publish the tasks that arrive until the reader has ended."""
        threading.Thread(target=self._receive, daemon=True).start()
        with ThreadPoolExecutor(1) as ahead:
            try:
                self._publish_all(ahead)
            except SegrelayError as error:
                with suppress(SegrelayError):
                    self._intent()
                self.say(ShardFailed(error))
            finally:
                self._ends.set()
                self._tasks.put(None)

    def _receive(self) -> None:
        """Queue tasks as they arrive, so that the sender never waits."""
        try:
            while (task := self.connection.recv()) is not None:
                self._tasks.put(task)
        except (EOFError, OSError):
            self._ends.set()
        finally:
            self._tasks.put(None)

    def _publish_all(self, ahead: ThreadPoolExecutor) -> None:
        coming = ahead.submit(self._next)
        while (drafted := coming.result()) is not None:
            coming = ahead.submit(self._next)
            published = self._publish(drafted)
            if self._bad_rows or not coming.done():
                insisting(self._intent, self._wait)
            self.say(published)
        insisting(self._intent, self._wait)

    def say(self, word: Word) -> None:
        """Send a message to the reader, if it still runs."""
        with self._speaks, suppress(OSError):
            self.connection.send(word)

    def _next(self) -> _Drafted | None:
        """Draft the next block that arrives; None when there are no more."""
        task = self._tasks.get()
        if task is None:
            return None
        rows = list(task.block.payloads())
        draft = insisting(
            lambda: self.publisher.draft_rows(rows, self.spec.membership, self.spec.options),
            self._wait,
        )
        bad_rows = tuple(bad_rows_of(task.file, rows, draft.problems))
        return _Drafted(task.number, draft, bad_rows)

    def _publish(self, drafted: _Drafted) -> BlockPublished:
        """Publish one block, again and again until Redis has it.

        How far the shard is then is written down with its next block, or by `_intent`.

        Raises:
            RedisUnavailable: Redis was away or full for too long.
        """
        number, draft, bad_rows = drafted
        published = insisting(lambda: self._write(number, draft), self._wait)
        self.tally += JobTally(
            number,
            published.payloads,
            published.events,
            published.accepted + published.repeated,
            published.unmatched,
            published.refused,
        )
        self._is_noted, self._bad_rows = False, bad_rows
        return BlockPublished(number, self.tally, published.woken)

    def _intent(self) -> None:
        """Record how far the shard has come, with its last bad rows, unless that is done."""
        if not self._is_noted:
            self.store.note(self.spec, self.epoch, self.shard, self.tally, self._bad_rows)
            self._is_noted, self._bad_rows = True, ()

    def _write(self, number: int, draft: Draft) -> Published:
        self._await_room()
        source = self.spec.source_of(self.shard)
        noted = noting(self.spec, self.epoch, self.shard, self.tally)
        return self.publisher.write_draft(
            draft, position=number, source=source, noted=noted, epoch=self.epoch
        )

    def _await_room(self) -> None:
        """Wait without a limit until the backfill lane has room; workers make it by draining."""
        while isinstance(room := self.publisher.room(lane_of_job(self.spec.name)), NoRoom):
            self._intent()
            self._wait(room.message)

    def _wait(self, why: str) -> None:
        """Wait a moment; every few seconds, tell the reader the reason.

        If whoever reads has ended or is told to stop, end too: what is not published yet is read
        again when the job goes on.
        """
        if time.monotonic() - self._told_at >= _TOLD_AGAIN_SECONDS:
            self._told_at = time.monotonic()
            self.say(ShardWaits(why))
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


def bad_rows_of(
    file: str, rows: Iterable[Payload], problems: Sequence[RefusedAt]
) -> Iterator[BadRow]:
    """Yield the rows that have problems, in a form that can be mended and sent again."""
    if not problems:
        return
    by_place = {(row.line, row.index): row for row in rows}
    for problem in problems:
        row = by_place.get((problem.line, problem.index)) or by_place.get((problem.line, 0))
        text = (row.text or text_of(row.value)) if row else b""
        shown = text.decode(errors="replace") if len(text) <= BAD_ROW_BYTES else ""
        yield BadRow(file, problem.line, problem.reason, problem.message, shown)

"""Reading a source and drafting it, a batch at a time, ahead of the writing.

Where a file is large, a process does that beside the one that writes: `start_drafting`. It reads
the file itself, hands over what it has drafted as calls of Redis, and ends with whoever started it.
"""

from __future__ import annotations

import gc
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple

from segrelay.ops.terminal.console import log_to_stderr
from segrelay.producer.events.payloads import Payload, is_row, is_timeless, reread, values_of
from segrelay.producer.processes import started
from segrelay.producer.publish import Publisher, in_bulk
from segrelay.producer.publishing.published import Draft, LaidOut, PublishOptions
from segrelay.producer.publishing.writing import JobPosition
from segrelay.producer.sources.blocks import block_times
from segrelay.producer.sources.files import OpenedSource, batches, opened, rows_hint
from segrelay.producer.sources.reading import read_payloads
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.contract.words import job_of_lane
from segrelay.worker.errors import Bug, RedisUnavailable, SegrelayError, UsageWrong

_ROWS_BELIEVED: Final = 10
"""The rows of a live pipe after which it is refused if none of them holds an event."""
_KEPT_BATCHES: Final = 4
"""The batches that may be drafted again: one that is written, and those that are ahead of it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The source of a sending, and the way in which it is published.

    Args:
        source: The path or address of the source, as the command has it; "-" = standard input.
        digest: The digest of the source, with which an interrupted job goes on where it stopped;
            "" = it can't.
        dry_run: True if nothing is written.
        waits: True if somebody waits for what comes out, so that its people are kept.
    """

    source: str
    options: PublishOptions
    digest: str
    dry_run: bool
    waits: bool = False

    def progress(self, position: int) -> JobPosition:
        """Return the position in the job's source at which a batch ends."""
        job = job_of_lane(self.options.lane)
        return JobPosition(job, position if self.digest else None, self.digest)


class Batch(NamedTuple):
    """Payloads that are written together.

    Attributes:
        number: From 1.
        payloads: The number of them.
        progress: The position in the job's source at which they end.
        last_line: The line of the last one.
        has_timeless: One of them holds a change without a time, which is new whenever it is sent.
        ends_timeless: One of the last line does.
        laid_out: Their draft, as calls of Redis; None = Redis could not be asked.
    """

    number: int
    payloads: int
    progress: JobPosition
    last_line: int
    has_timeless: bool
    ends_timeless: bool
    laid_out: LaidOut | None


@dataclass(slots=True)
class SourceDrafter:
    """Reads a source in this process, and drafts its batches.

    One thread asks for the next batch, and another one may have a former one drafted again.

    Args:
        following: The batches of the source.
        is_live: More of it may come at any time.
        damages: Why the source is not whole, once it was read to its end.
    """

    publisher: Publisher
    choice: Choice
    following: Iterator[Iterable[Payload]]
    is_live: bool
    damages: list[str] = field(default_factory=list)
    _number: int = 0
    _position: int = 0
    _drafted: dict[int, tuple[list[Payload], JobPosition]] = field(default_factory=dict)

    def next(self) -> Batch | None:
        """Read and draft the next batch; None when there are no more.

        Nothing is laid out where Redis is away: that is told when it is the batch's turn.

        Raises:
            UsageWrong: The source holds rows without events.
        """
        coming = next(self.following, None)
        if coming is None:
            return None
        self._number += 1
        is_first = self._number == 1
        if self.is_live or is_first:
            # A draft has the time of its beginning: by then all that came by a pipe has to be here.
            coming = list(coming)
            if is_first:
                self._refuse_rows(coming)
        payloads: list[Payload] = []
        timeless: list[Payload] = []
        rest = _kept(iter(coming), payloads, timeless)
        try:
            draft = self.publisher.draft(rest, None, self.choice.options)
        except RedisUnavailable:
            draft = None
            deque(rest, maxlen=0)
        self._position += len(payloads)
        progress = self.choice.progress(self._position)
        self._drafted[self._number] = payloads, progress
        self._drafted.pop(self._number - _KEPT_BATCHES, None)
        last_line = payloads[-1].line
        return Batch(
            self._number,
            len(payloads),
            progress,
            last_line,
            has_timeless=bool(timeless),
            ends_timeless=any(payload.line >= last_line for payload in timeless),
            laid_out=self._lay_out(draft, progress) if draft else None,
        )

    def again(self, number: int) -> LaidOut:
        """Draft a batch once more, which was returned a moment ago.

        Raises:
            RedisUnavailable: Redis can't be asked.
        """
        payloads, progress = self._drafted[number]
        draft = self.publisher.draft(map(reread, payloads), None, self.choice.options)
        return self._lay_out(draft, progress)

    def _lay_out(self, draft: Draft, progress: JobPosition) -> LaidOut:
        if self.choice.waits:
            draft.result.people = draft.people(0)
        return self.publisher.lay_out(draft, progress)

    def _refuse_rows(self, batch: Sequence[Payload]) -> None:
        """Refuse a source whose first rows hold no events at all."""
        if self.is_live and len(batch) < _ROWS_BELIEVED:
            return
        readable = [payload.value for payload in batch if not payload.error]
        values = [one for value in readable for one in values_of(value)]
        source = self.choice.source
        if values and all(map(is_row, values)):
            raise UsageWrong(
                f"{source} holds profiles without `segment_events`: what `segrelay send` takes"
                f" are events. Nothing was sent. {rows_hint(source).capitalize()}"
            )


def _kept(
    payloads: Iterator[Payload], kept: list[Payload], timeless: list[Payload]
) -> Iterator[Payload]:
    """Yield payloads and keep them, each without its value once that was dealt with.

    Those that hold a change without a time are noted.
    """
    for payload in payloads:
        kept.append(payload)
        # It may stand in the text with escapes.
        may_hold_change = b'"change"' in payload.text or b"\\u" in payload.text
        if may_hold_change and not payload.error and is_timeless(payload.value):
            timeless.append(payload)
        yield payload
        payload.value = None


def drafter_of(
    file: OpenedSource,
    publisher: Publisher,
    choice: Choice,
    times: int,
    stops: Callable[[], bool] = lambda: False,
) -> SourceDrafter:
    """Return a drafter that reads an opened source in this process, in the parts of `batches`."""
    damages: list[str] = []
    payloads = read_payloads(file.lines, on_damage=damages.append)
    parts = batches(payloads, is_live=file.is_live, times=times, stops=stops)
    return SourceDrafter(publisher, choice, parts, file.is_live, damages)


_NEXT: Final = 0
"""The request for the next batch; any other one is the number of a batch that is drafted again."""
_END_SECONDS: Final = 2.0
"""The seconds within which the process ends by itself: nothing is lost with it."""


def _draft_beside(connection: Connection, config: Path, choice: Choice, file_id: object) -> None:
    """Draft a file for another process, until that has ended or asks for nothing more."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the one that writes, behind it
    gc.freeze()
    log_to_stderr()
    with suppress(EOFError, ConnectionError):
        try:
            settings = load_settings(config)
            redis = settings.redis
            with (
                in_bulk(),
                closing(connect(resolve_url(redis), replicas=redis.replicas)) as client,
                opened(choice.source) as file,
            ):
                if file.file_id != file_id:
                    raise UsageWrong(f"{choice.source} was replaced as this began.")
                publisher = Publisher(client, settings, dry_run=choice.dry_run)
                _serve(
                    connection, drafter_of(file, publisher, choice, block_times(redis.partitions))
                )
        except SegrelayError as error:
            connection.recv()
            connection.send(error)


def _serve(connection: Connection, drafter: SourceDrafter) -> None:
    """Answer requests; the next batch is drafted before it is asked for."""
    coming = _answer(drafter, _NEXT)
    while True:
        request = connection.recv()
        connection.send(_answer(drafter, request) if request else coming)
        if not request:
            coming = _answer(drafter, _NEXT)


def _answer(drafter: SourceDrafter, request: int) -> Batch | LaidOut | list[str] | Exception:
    try:
        return drafter.again(request) if request else drafter.next() or drafter.damages
    except (SegrelayError, OSError) as error:
        return error


@contextmanager
def start_drafting(
    config: Path, choice: Choice, file: OpenedSource, stops: Callable[[], bool]
) -> Iterator[DrafterBeside]:
    """Draft a file in a process, and end that at the end of the `with` block.

    Args:
        config: The path of the configuration.
        choice: The name of the file, and how it is published.
        file: The file.
        stops: A function that says whether to draft no more.
    """
    what = (_draft_beside, config, choice, file.file_id)
    with started(*what, end_seconds=_END_SECONDS) as (process, connection):
        yield DrafterBeside(choice.source, process, connection, stops)


class DrafterBeside:
    """Has a source drafted by another process, which is always a batch ahead."""

    def __init__(
        self, source: str, process: BaseProcess, connection: Connection, stops: Callable[[], bool]
    ) -> None:
        self.damages: list[str] = []
        self._source = source
        self._process = process
        self._connection = connection
        self._stops = stops
        self._speaks = threading.Lock()

    def next(self) -> Batch | None:
        """Return the next batch from the other process; None when there are no more."""
        if self._stops():
            return None
        found = self._answer_to(_NEXT)
        if isinstance(found, Batch):
            return found
        self.damages = found
        return None

    def again(self, number: int) -> LaidOut:
        """Return a former batch, drafted anew by the other process."""
        found = self._answer_to(number)
        assert isinstance(found, LaidOut)
        return found

    def _answer_to(self, request: int) -> Any:
        try:
            with self._speaks:
                self._connection.send(request)
                answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(_END_SECONDS)
            raise Bug(
                f"The process that reads {self._source} ended (exit code {self._process.exitcode})."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


BatchDrafter = SourceDrafter | DrafterBeside

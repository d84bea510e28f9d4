"""Reading a source and drafting it, a batch at a time, ahead of the writing.

Where a file is large, a process does that beside the one that writes: `start_drafting`. It reads
the file itself, hands over what it has drafted as calls of Redis, and ends with whoever started it.
"""

from __future__ import annotations

import gc
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple

from segrelay.ops.terminal.console import log_to_stderr
from segrelay.producer.events.payloads import Payload, is_row, reread, values_of
from segrelay.producer.processes import started
from segrelay.producer.publish import Publisher, in_bulk
from segrelay.producer.publishing.published import Draft, PublishOptions
from segrelay.producer.sources.blocks import batches
from segrelay.producer.sources.opening import Opened, opened, rows_hint
from segrelay.producer.sources.reading import read_payloads
from segrelay.producer.sources.remote import FileState
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.redis.url import repeat_until_confirmed
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import Bug, RedisUnavailable, SegrelayError, UsageWrong

_ROWS_BELIEVED: Final = 10
"""The rows of a live pipe after which it is refused if none of them holds an event."""
_LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Choice:
    """The source of a sending, and the way in which it is published.

    Args:
        source: The path or address of the source, as the command has it; "-" = standard input.
        dry_run: True if nothing is written.
        waits: True if somebody waits for what comes out, so that its people are kept.
        away_seconds: The longest wait for a Redis that is away.
    """

    source: str
    options: PublishOptions
    dry_run: bool
    waits: bool
    away_seconds: float


class Batch(NamedTuple):
    """Payloads that are written together.

    Attributes:
        payloads: The number of them.
        last_line: The line of the last one.
        draft: Laid out.
    """

    payloads: int
    last_line: int
    draft: Draft


@dataclass(slots=True)
class SourceDrafter:
    """Reads a source in this process, and drafts its batches.

    Args:
        following: The batches of the source.
        is_live: More of it may come at any time.
        damages: Why the source is not whole, once it was read to its end.
        gives_up: Says whether nobody waits any more for a Redis that is away.
    """

    publisher: Publisher
    choice: Choice
    following: Iterator[Iterable[Payload]]
    is_live: bool
    damages: list[str]
    gives_up: Callable[[], bool] = lambda: False
    _has_begun: bool = False

    def next(self) -> Batch | None:
        """Read and draft the next batch; None when there are no more.

        Raises:
            UsageWrong: The source holds rows without events.
            RedisUnavailable: Redis was away for too long.
        """
        coming = next(self.following, None)
        if coming is None:
            return None
        if self.is_live or not self._has_begun:
            # A draft has the time of its beginning: by then all that came by a pipe has to be here.
            coming = list(coming)
            if not self._has_begun:
                self._refuse_rows(coming)
                self._has_begun = True
        payloads: list[Payload] = []
        rest = _kept(iter(coming), payloads)
        try:
            draft = self._draft(rest)
        except RedisUnavailable:
            deque(rest, maxlen=0)
            draft = repeat_until_confirmed(
                lambda: self._draft(map(reread, payloads)),
                self._wait,
                away_seconds=self.choice.away_seconds,
            )
        if self.choice.waits:
            draft.result.people = draft.people(0)
        return Batch(len(payloads), payloads[-1].line, self.publisher.lay_out(draft))

    def _draft(self, payloads: Iterable[Payload]) -> Draft:
        return self.publisher.draft(payloads, None, self.choice.options)

    def _wait(self, why: str) -> None:
        if self.gives_up():
            raise RedisUnavailable(why)
        time.sleep(_LOOK_SECONDS)

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


def _kept(payloads: Iterator[Payload], kept: list[Payload]) -> Iterator[Payload]:
    """Yield payloads and keep them, each without its value once that was dealt with."""
    for payload in payloads:
        kept.append(payload)
        yield payload
        payload.value = None


def drafter_of(
    file: Opened,
    publisher: Publisher,
    choice: Choice,
    *,
    stops: Callable[[], bool] = lambda: False,
    gives_up: Callable[[], bool] = lambda: False,
) -> SourceDrafter:
    """Return a drafter that reads an opened source in this process, in the parts of `batches`."""
    payloads = read_payloads(file.pipe or file.stream, on_damage=file.damages.append)
    is_live = file.pipe is not None
    parts = batches(payloads, is_live=is_live, stops=stops)
    return SourceDrafter(publisher, choice, parts, is_live, file.damages, gives_up)


_END_SECONDS: Final = 2.0
"""The seconds within which the process ends by itself: nothing is lost with it."""


def _draft_beside(
    connection: Connection, config: Path, choice: Choice, state: FileState | None
) -> None:
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
                opened(choice.source, for_send=True) as file,
            ):
                if file.state != state:
                    raise UsageWrong(f"{choice.source} was replaced as this began.")
                publisher = Publisher(client, settings, dry_run=choice.dry_run)
                drafter = drafter_of(file, publisher, choice)
                while True:  # the next batch is drafted before it is asked for
                    coming = drafter.next()
                    if coming:
                        # A process that writes has no use for what reads, and can't be given it.
                        reading = coming.draft.reading._replace(resolve_audience=_resolve_nothing)
                        coming.draft.reading = reading
                    connection.recv()
                    connection.send(coming or drafter.damages)
        except (SegrelayError, OSError) as error:
            connection.recv()
            connection.send(error)


def _resolve_nothing(audience_id: str, slug: str) -> str:
    """Stand for the function that resolves audiences, in a draft that is not read again."""
    raise AssertionError(audience_id, slug)


@contextmanager
def start_drafting(
    config: Path, choice: Choice, file: Opened, stops: Callable[[], bool]
) -> Iterator[DrafterBeside]:
    """Draft a file in a process, and end that at the end of the `with` block.

    Args:
        config: The path of the configuration.
        choice: The name of the file, and how it is published.
        file: The file.
        stops: A function that says whether to draft no more.
    """
    what = (_draft_beside, config, choice, file.state)
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

    def next(self) -> Batch | None:
        """Return the next batch from the other process; None when there are no more."""
        try:
            self._connection.send(None)
            while not self._connection.poll(_LOOK_SECONDS):
                if self._stops():
                    return None
            found: Any = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(_END_SECONDS)
            raise Bug(
                f"The process that reads {self._source} ended (exit code {self._process.exitcode})."
            ) from None
        if isinstance(found, Exception):
            raise found
        if isinstance(found, Batch):
            return None if self._stops() else found
        self.damages = found
        return None


BatchDrafter = SourceDrafter | DrafterBeside

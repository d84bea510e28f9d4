"""`segrelay send`: put the payloads of a file into Redis, and wait until all are settled.

A batch is read and drafted while the one before is written.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, NamedTuple

import typer

from segrelay.ops.state.opened import opened as opened_redis
from segrelay.ops.terminal.console import mention, print_result, progress, say
from segrelay.ops.terminal.moments import parse_seconds
from segrelay.ops.terminal.options import SendOptions
from segrelay.ops.terminal.serving import Interruption, interruptible_between_steps
from segrelay.producer.events.payloads import Payload, is_row, reread, values_of
from segrelay.producer.publish import Publisher, in_bulk
from segrelay.producer.publishing.published import Draft, Published, PublishOptions
from segrelay.producer.sources.blocks import batches, read_payloads
from segrelay.producer.sources.opening import opened, rows_hint
from segrelay.worker.contract.printable import plural, printable
from segrelay.worker.contract.processes import WORKER, read_processes
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import resolve_url
from segrelay.worker.contract.redis.url import Answered, patience_seconds, repeat_until_confirmed
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import (
    RedisUnavailable,
    SealedAnew,
    SourceDamaged,
    UsageWrong,
)

_ROWS_BELIEVED: Final = 10
"""The rows of a live pipe after which it is refused if none of them holds an event."""
_POLL_SECONDS: Final = 0.2
_TOLD_AGAIN_SECONDS: Final = 10.0


class Deadline:
    """The moment when a command gives up: one limit for everything that it waits for.

    Args:
        text: The value of --timeout, such as 90s or 15m; "" where the caller gave no limit.

    Attributes:
        seconds: The limit; 0 = the caller gave none.

    Raises:
        UsageWrong: It is no duration.
    """

    def __init__(self, text: str = "") -> None:
        is_number = text.replace(".", "", 1).isdigit()
        seconds = float(text) if is_number else text and parse_seconds(text, "--timeout")
        self.seconds = float(seconds or 0)
        self._at = time.monotonic() + self.seconds if seconds != "" else None

    def passed(self) -> bool:
        """Say whether the command has to give up waiting."""
        return self._at is not None and time.monotonic() >= self._at


class Batch(NamedTuple):
    """Payloads that are written together.

    Attributes:
        payloads: The number of payloads.
        last_line: The line of the last payload.
        draft: The draft of them, which is laid out.
    """

    payloads: int
    last_line: int
    draft: Draft


@dataclass(slots=True)
class Sending:
    """One run over the payloads of a source.

    Args:
        source: The path or address of the source, as the command has it; "-" = standard input.
        options: The way in which it is published.
        away_seconds: The longest wait for a Redis that is away.
        dry_run: True if nothing is written.
        waits: True if somebody waits for what comes out, so that its people are kept.
    """

    publisher: Publisher
    source: str
    options: PublishOptions
    deadline: Deadline
    interruption: Interruption
    away_seconds: float
    dry_run: bool = False
    waits: bool = False
    published: Published = field(default_factory=Published)
    _last_line: int = 0
    _is_in_flight: bool = False
    _told_at: float = -math.inf

    def run(
        self,
        batches: Iterator[Iterable[Payload]],
        advance: Callable[[int], None],
        *,
        is_live: bool = False,
    ) -> None:
        """Publish the batches of a source, and wait where Redis has no room.

        While Redis writes a batch to its disk, the next one is read and drafted.

        Args:
            batches: The batches, each of which is read while it is gone through.
            advance: A function that is called with the number of payloads that were published.
            is_live: True if more of the source may come at any time.

        Raises:
            RedisUnavailable: With what is surely in Redis, and how to go on.
            UsageWrong: The source holds rows without events.
            KeyboardInterrupt, SystemExit: It was interrupted, and has said the same.
        """
        people: list[bytes] = []  # joined once: each sum of two results would copy all before it
        drafts = self._drafts(batches, is_live=is_live)
        try:
            with in_bulk(), ThreadPoolExecutor(1) as ahead:
                coming = ahead.submit(next, drafts, None)
                while (batch := coming.result()) is not None:
                    coming = ahead.submit(next, drafts, None)
                    added = self._insisting(lambda: self._write(batch.draft))
                    people += added.people
                    self.published += replace(added, people=())
                    self._last_line, self._is_in_flight = batch.last_line, False
                    advance(batch.payloads)
            self.published.people = tuple(people)
            self.interruption.obey()
        except (KeyboardInterrupt, SystemExit):
            mention(f"Interrupted. {self._how_to_go_on()}")
            raise
        except SealedAnew as error:
            raise SealedAnew(
                "Redis came back empty, or with another protection of people's data, since this"
                " began. Send all of it again: what is there twice is delivered once, except for"
                " changes without a time of their own."
            ) from error
        except RedisUnavailable as error:
            if self.interruption.is_requested:  # it ended the wait of what drafts
                mention(f"Interrupted. {self._how_to_go_on()}")
                self.interruption.obey()
            raise type(error)(f"{error.message} {self._how_to_go_on()}") from error

    def _drafts(self, batches: Iterator[Iterable[Payload]], *, is_live: bool) -> Iterator[Batch]:
        """Read and draft one batch after the other.

        Raises:
            UsageWrong: The source holds rows without events.
            RedisUnavailable: Redis was away for too long.
        """
        for number, batch in enumerate(batches):
            coming: Iterable[Payload] = batch
            if is_live or not number:
                # A draft has the time of its beginning: by then all that came by a pipe is here.
                coming = list(batch)
                if not number:
                    self._refuse_rows(coming, is_live=is_live)
            payloads: list[Payload] = []
            rest = _kept(iter(coming), payloads)
            try:
                draft = self.publisher.draft(rest, None, self.options)
            except RedisUnavailable:
                deque(rest, maxlen=0)
                draft = self._insisting(
                    lambda: self.publisher.draft(map(reread, payloads), None, self.options)  # noqa: B023 - called in this round
                )
            if self.waits:
                draft.result.people = draft.people(0)
            yield Batch(len(payloads), payloads[-1].line, self.publisher.lay_out(draft))

    def _wait(self, why: str) -> None:
        """Wait a moment; every few seconds, say why.

        Raises:
            RedisUnavailable: There is no more time, or a person has interrupted it.
        """
        if self.interruption.is_requested or self.deadline.passed():
            raise RedisUnavailable(why)
        if time.monotonic() - self._told_at >= _TOLD_AGAIN_SECONDS:
            self._told_at = time.monotonic()
            mention(f"waiting: {why}")
        time.sleep(_POLL_SECONDS)

    def _refuse_rows(self, batch: Sequence[Payload], *, is_live: bool) -> None:
        """Refuse a source whose first rows hold no events at all."""
        if is_live and len(batch) < _ROWS_BELIEVED:
            return
        readable = [payload.value for payload in batch if not payload.error]
        values = [one for value in readable for one in values_of(value)]
        if values and all(map(is_row, values)):
            raise UsageWrong(
                f"{self.source} holds profiles without `segment_events`: what `segrelay send` takes"
                f" are events. Nothing was sent. {rows_hint(self.source).capitalize()}"
            )

    def _write(self, draft: Draft) -> Published:
        """Write a draft once its lane has room; raise if Redis' memory is full, for any lane.

        Its events have the times of the draft, so that what is there twice is delivered once.
        """
        while not self.dry_run and (full := self.publisher.why_full(self.options.lane)):
            if self.publisher.why_full():  # it is the memory, which is full for each lane
                raise RedisUnavailable(full)
            self._wait(full)
        self._is_in_flight = True
        return self.publisher.write_draft(draft)

    def _insisting(self, action: Callable[[], Answered]) -> Answered:
        return repeat_until_confirmed(action, self._wait, away_seconds=self.away_seconds)

    def _how_to_go_on(self) -> str:
        """Return a message that says which lines are surely in Redis, and how to send the rest.

        The last line that was published may hold more payloads, or be the first of many that
        belong to one: it is named as the first one to send again.
        """
        line = self._last_line or 1
        sure = f"Everything before line {line} is in Redis"
        if not self._last_line:
            sure = "Nothing is sure yet"
        if not self._is_in_flight:
            sure += ", and nothing behind that line" if self._last_line else ": nothing was written"
        return (
            f"{sure}. Sending all from line {line} on again is safe: what is there twice is "
            "delivered once, except for changes without a time of their own."
        )


def _kept(payloads: Iterator[Payload], kept: list[Payload]) -> Iterator[Payload]:
    """Yield payloads and keep them, each without its value once that was dealt with."""
    for payload in payloads:
        kept.append(payload)
        yield payload
        payload.value = None


_WATCHING_POLL_SECONDS: Final = 0.3
_WATCHING_TOLD_AGAIN_SECONDS: Final = 15.0
_ASKED_AGAIN_SECONDS: Final = 3.0


def wait_for_deliveries(
    client: Redis,
    settings: Settings,
    sent: str | Published,
    deadline: Deadline,
    interruption: Interruption,
) -> int:
    """Show the progress of deliveries until none of them waits; return how many still do.

    Whatever stops them is told at once, and again from time to time.

    Args:
        client: Redis.
        settings: The configuration.
        sent: The name of a job, or the result of publishing what is waited for.
        deadline: The moment at which the command gives up.
        interruption: The interruption by an operator.

    Raises:
        RedisUnavailable: It was away for too long.
    """
    away_seconds = patience_seconds(resolve_url(settings.redis))
    told: Sequence[str] = ()
    told_at = asked_at = -math.inf
    answered_at = time.monotonic()
    left = _count_waiting(client, settings, sent)
    if not left:
        return 0
    total = left if isinstance(sent, str) else sent.accepted
    with progress("settled", total) as shown:
        shown(total - left)
        while left:
            if interruption.is_requested:
                mention(f"Interrupted. {_still_waiting(left)}; they stay in Redis.")
                interruption.obey()
            before, stops = left, told
            try:
                if time.monotonic() - asked_at >= _ASKED_AGAIN_SECONDS:
                    asked_at = time.monotonic()
                    stops = _stops(client, settings, sent)
                left = min(left, _count_waiting(client, settings, sent))
                answered_at = time.monotonic()
            except RedisUnavailable as error:
                if time.monotonic() >= answered_at + away_seconds:
                    raise
                stops = [error.message]
            if stops != told or time.monotonic() - told_at >= _WATCHING_TOLD_AGAIN_SECONDS:
                told, told_at = stops, time.monotonic()
                for sentence in stops:
                    mention(f"waiting: {sentence}")
            shown(before - left)
            if left and deadline.passed():
                mention(
                    f"{_still_waiting(left)}, and --timeout has passed. `segrelay status` "
                    "tells what they wait for; they stay in Redis."
                )
                return left
            if left:
                time.sleep(_WATCHING_POLL_SECONDS)
    return 0


def _count_waiting(client: Redis, settings: Settings, sent: str | Published) -> int:
    """Estimate how many of these deliveries wait; 0 if and only if none does.

    Others in their streams may be counted, as long as one of them is there.
    """
    from segrelay.ops.state.partitions import all_partitions, ask_each  # noqa: PLC0415 - see below
    from segrelay.ops.state.waiting import Filter, find_streams  # noqa: PLC0415 - see below

    if isinstance(sent, str):
        partitions = all_partitions(client, settings)
        return sum(one.length for one in find_streams(client, partitions, Filter(job=sent)))
    answers = ask_each(
        client,
        sent.entries.items(),
        lambda pipe, entry: pipe.xlen(entry[0]),
        lambda pipe, entry: pipe.xrange(entry[0], entry[1].first, entry[1].last, count=1),
    )
    looks = zip(answers[::2], answers[1::2], strict=True)
    waiting: int = sum(length for length, found in looks if found)
    return min(waiting, sent.accepted)


def _stops(client: Redis, settings: Settings, sent: str | Published) -> Sequence[str]:
    """Return what stops these deliveries."""
    # All this takes as long to load as a thousand payloads to send, and serves only --wait.
    from segrelay.ops.state.partitions import all_partitions  # noqa: PLC0415 - see above
    from segrelay.ops.state.waiting import Filter, find_streams  # noqa: PLC0415 - see above
    from segrelay.ops.status.standing import read_standing  # noqa: PLC0415 - see above

    job = sent if isinstance(sent, str) else ""
    if isinstance(sent, str):
        streams = find_streams(client, all_partitions(client, settings), Filter(job=sent))
        triggers = {one.trigger for one in streams}
    else:
        triggers = {name.rpartition("|")[2] for name in sent.entries}
    return list(read_standing(client, settings).stops(triggers, job))


def _still_waiting(count: int) -> str:
    return f"Still waiting: {plural(count, 'delivery', 'deliveries')}"


_PROBLEMS_SHOWN: Final = 10


def send(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-", help="A file of JSON lines or one JSON document; - reads a pipe."
        ),
    ],
    *,
    options: SendOptions,
) -> None:
    """Put the payloads of a file into Redis, from where the workers deliver them.

    Exits with 1 if nothing was accepted, if the file is cut off, if events are older than what the
    ledger remembers, or if --timeout has passed; with --wait also if anything was refused or died.
    """
    deadline = Deadline(options.timeout)
    publishing = PublishOptions(
        options.lane,
        skip_hook=None if options.hooks is None else not options.hooks,
        older_than_ledger=options.older_than_ledger,
    ).resolved()
    if options.dry_run and options.wait:
        raise UsageWrong("--dry-run sends nothing that --wait could wait for.")
    with (
        interruptible_between_steps() as interruption,
        opened(source, for_send=True) as file,
        opened_redis(patient=False) as (settings, client),
    ):
        sending = Sending(
            Publisher(client, settings, dry_run=options.dry_run),
            source,
            publishing,
            deadline,
            interruption,
            deadline.seconds or patience_seconds(resolve_url(settings.redis)),
            options.dry_run,
            options.wait,
        )
        damages, is_live = file.damages, file.pipe is not None
        payloads = read_payloads(file.pipe or file.stream, on_damage=damages.append)
        parts = batches(payloads, is_live=is_live, stops=lambda: interruption.is_requested)
        with progress("sent") as advance:
            sending.run(parts, advance, is_live=is_live)
        published = sending.published
        document = published.document() | {"dry_run": options.dry_run}
        _report(sending, as_json=options.as_json)
        ended, waiting = None, 0
        try:
            if options.wait:
                waiting = wait_for_deliveries(client, settings, published, deadline, interruption)
                from segrelay.ops.outcomes import read_ended  # noqa: PLC0415 - see `_stops`

                ended = read_ended(client, settings, published, waiting)
                document["outcomes"] = ended.document()
            elif published.accepted and not options.dry_run:
                with suppress(RedisUnavailable):  # all of it is accepted already
                    if not any(one.kind == WORKER for one in read_processes(client, [])):
                        mention(
                            "No worker runs, so what was sent waits in Redis: `segrelay up` or"
                            " `segrelay worker` starts one."
                        )
        finally:
            print_result(document, *(ended.lines() if ended else ()), as_json=options.as_json)
    if damages:
        raise SourceDamaged(
            f"{source} is damaged: {damages[0]}. What could be read of it "
            f"{'would be' if options.dry_run else 'was'} sent; send the whole file: events that are"
            " there twice are delivered once."
        )
    nothing = published.payloads and not published.accepted
    refused = published.refused if options.strict or options.wait else 0
    if nothing or published.forgotten or refused or waiting or (ended and ended.counts.dead):
        raise typer.Exit(1)


def _report(sending: Sending, *, as_json: bool) -> None:
    published = sending.published
    if not as_json:
        _say_summary(published, dry_run=sending.dry_run)
    if not published.payloads:
        mention(f"{sending.source} holds no payloads.")
    if published.forgotten:
        mention(
            f"Older than what the ledger remembers: {plural(published.forgotten, 'event')} "
            "(delivery.ledger_retention): who left after that may be forgotten. If they are still "
            "true: "
            + (
                "--older-than-ledger accepts them."
                if sending.dry_run
                else "`segrelay quarantine replay --reason older_than_ledger --force`."
            )
        )
    if (published.unmatched or published.refused) and not sending.dry_run:
        mention("What was refused or unmatched is kept: `segrelay quarantine list`.")


def _say_summary(published: Published, *, dry_run: bool) -> None:
    accepted = "would be accepted" if dry_run else "accepted"
    say(
        f"{plural(published.payloads, 'payload')}, {plural(published.events, 'event')}:"
        f" {plural(published.accepted, 'delivery', 'deliveries')} {accepted},"
        f" {published.unmatched:,} unmatched, {published.refused:,} refused"
    )
    journeys = _journeys(published)
    if journeys:
        say(journeys)
    if dry_run:
        mention("This was a dry run: nothing was written.")
    for problem in published.problems[:_PROBLEMS_SHOWN]:
        message = printable(problem.message)
        mention(f"line {problem.line}[{problem.index}]: {problem.reason}: {message}")
    if published.refused > _PROBLEMS_SHOWN:
        mention(f"… and {published.refused - _PROBLEMS_SHOWN:,} more problems")


def _journeys(published: Published) -> str:
    """Return a sentence on events that start no journeys at Insider; "" = all of them may."""
    total, without = published.accepted, published.without_hook
    if not without:
        return ""
    which = "these" if without == total else f"{without:,} of {total:,} of these"
    return f"Insider is told to start no journeys for {which}; --hooks would let it."

"""Sending payloads in batches: which are surely in Redis, and the wait until all are settled."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from segrelay.ops.send.drafting import Batch, BatchDrafter, Choice
from segrelay.ops.terminal.console import mention, progress
from segrelay.ops.terminal.frame import Result
from segrelay.ops.terminal.interrupts import Interruption, interruptible_between_steps
from segrelay.ops.terminal.options import Timeout
from segrelay.producer.publish import Publisher, in_bulk
from segrelay.producer.publishing.published import LaidOut, Published
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.processes import WORKER, read_processes
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import resolve_url
from segrelay.worker.contract.redis.url import patience_seconds
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.values import parse_duration
from segrelay.worker.errors import Bug, RedisUnavailable, UsageWrong

if TYPE_CHECKING:
    from segrelay.ops.state.acts import Reads

_FULL_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.2
_TOLD_AGAIN_SECONDS: Final = 10.0


class Deadline:
    """The moment when a command gives up: one limit for everything that it waits for.

    Args:
        seconds: From now; None where the caller gave no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds

    def passed(self, *, since: float = 0.0, unless_given: float | None = None) -> bool:
        """Say whether the command has to give up waiting.

        Args:
            since: The beginning of the trouble, by the monotonic clock.
            unless_given: Seconds for which it is borne without a limit; None = for ever.
        """
        if self._at is not None:
            return time.monotonic() >= self._at
        return unless_given is not None and time.monotonic() >= since + unless_given


@dataclass(slots=True)
class Sending:
    """One run over the payloads of a source.

    Args:
        away_seconds: The longest wait for a Redis that is away.
    """

    publisher: Publisher
    choice: Choice
    away_seconds: float
    deadline: Deadline
    interruption: Interruption
    published: Published = field(default_factory=Published)
    _last: Batch | None = None
    _in_flight: Batch | None = None

    def run(self, drafter: BatchDrafter, advance: Callable[[int], None]) -> None:
        """Publish the batches of a source, and wait where Redis has no room.

        While Redis writes a batch to its disk, the next one is read and drafted.

        Raises:
            RedisUnavailable: With what is surely in Redis, and how to go on.
            UsageWrong: The source holds rows without events.
            KeyboardInterrupt, SystemExit: It was interrupted, and has said the same.
        """
        people: list[bytes] = []  # joined once: each sum of two results would copy all before it
        try:
            with in_bulk(), ThreadPoolExecutor(1) as ahead:
                coming = ahead.submit(drafter.next)
                while (batch := coming.result()) is not None:
                    coming = ahead.submit(drafter.next)
                    added = self._publish(batch, partial(drafter.again, batch.number))
                    people += added.people
                    self.published += replace(added, people=())
                    self._last, self._in_flight = batch, None
                    advance(batch.payloads)
            self.published.people = tuple(people)
            self.interruption.obey()
        except (KeyboardInterrupt, SystemExit):
            mention(f"Interrupted. {self._how_to_go_on()}")
            raise
        except Bug as error:
            raise Bug(f"{error.message} {self._how_to_go_on()}") from error

    def _publish(self, batch: Batch, again: Callable[[], LaidOut]) -> Published:
        """Publish a batch; repeat it while Redis is away if that is harmless.

        It is for a job, by its positions, and for events, since what is there twice is delivered
        once. Changes without a time are as new each time. A draft is as old as it was made, so that
        there is a new one once it had to wait.

        Args:
            batch: The batch.
            again: Drafts it once more.
        """
        begun = time.monotonic()
        laid_out = batch.laid_out
        while True:
            if self._await_capacity():
                laid_out = None
            self._in_flight = batch
            try:
                return self.publisher.write_laid_out(laid_out or again(), batch.progress)
            except RedisUnavailable as error:
                may_repeat = self.choice.digest or not batch.has_timeless
                if not may_repeat or self.deadline.passed(
                    since=begun, unless_given=self.away_seconds
                ):
                    raise RedisUnavailable(f"{error.message} {self._how_to_go_on()}") from error
            laid_out = None
            self._pause()

    def _await_capacity(self) -> bool:
        """Wait until Redis has room, and print what is waited for; False = it has room at once."""
        if self.choice.dry_run:
            return False
        waited = False
        begun = time.monotonic()
        told_at = begun - _TOLD_AGAIN_SECONDS
        while True:
            borne_seconds: float | None = None
            try:
                full = self.publisher.why_full(self.choice.options.lane)
                if full is None:
                    return waited
                message = full.message
                borne_seconds = _FULL_SECONDS if full.reason == "memory" else None
            except RedisUnavailable as error:
                message = error.message
                borne_seconds = self.away_seconds
            if self.deadline.passed(since=begun, unless_given=borne_seconds):
                raise RedisUnavailable(f"{message} {self._how_to_go_on()}")
            if time.monotonic() - told_at >= _TOLD_AGAIN_SECONDS:
                mention(f"waiting: {message}")
                told_at = time.monotonic()
            self._pause()
            waited = True

    def _pause(self) -> None:
        self.interruption.obey()
        time.sleep(_POLL_SECONDS)

    def _how_to_go_on(self) -> str:
        """Return a message that says which lines are surely in Redis, and how to send the rest.

        The last line that was published may hold more payloads, or be the first of many that
        belong to one: it is named as the first one to send again.
        """
        last, in_flight = self._last, self._in_flight
        line = last.last_line if last else 1
        sure = f"Everything before line {line} is in Redis" if last else "Nothing is sure yet"
        if self.choice.digest:
            return f"{sure}; the same command goes on exactly where it stopped."
        if not in_flight:
            sure += ", and nothing behind that line" if last else ": nothing was written"
        if (last and last.ends_timeless) or (in_flight and in_flight.has_timeless):
            return (
                f"{sure}. Among what may be there twice, if all from line {line} on is sent again, "
                "are changes without a time: these would be delivered twice."
            )
        return (
            f"{sure}. Sending all from line {line} on again is safe: what is there twice is "
            "delivered once."
        )


def seconds_of(text: str) -> float | None:
    """Return the value of --timeout in seconds; None = it was not given."""
    if not text:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
    except ValueError as error:
        raise UsageWrong(f"--timeout: {error}; write 90s or 15m.") from error


@dataclass(frozen=True, slots=True)
class WaitOptions:
    """The options of a command that can wait until what it has put into Redis is settled."""

    is_asked: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait until all that was sent is settled; the exit code is 1 if any of it died.",
        ),
    ] = False
    timeout: Timeout = ""

    def refuse_wrong(self, *, dry_run: bool) -> None:
        """Refuse options that contradict each other."""
        if dry_run and self.is_asked:
            raise UsageWrong("--dry-run sends nothing that --wait could wait for.")
        if self.timeout and not self.is_asked:
            raise UsageWrong("--timeout says how long --wait waits: give both.")
        seconds_of(self.timeout)

    def wait(self, relay: Reads, sent: Published, result: Result) -> None:
        """Wait for the deliveries if `--wait` is given, and add their outcomes to the result."""
        if not self.is_asked:
            return
        deadline = Deadline(seconds_of(self.timeout))
        client, settings = relay.client, relay.settings
        from segrelay.ops.outcomes.reading import read_ended  # noqa: PLC0415 - see `_stops`

        with interruptible_between_steps() as interruption:
            waiting = wait_for_deliveries(client, settings, sent, deadline, interruption)
        ended = read_ended(client, settings, sent, waiting)
        result.document = {**result.document, "outcomes": ended.document()}
        result.text = (*result.text, *ended.lines())
        result.exit_code = 1 if waiting or ended.counts.dead else 0


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
            if deadline.passed():
                mention(
                    f"{_still_waiting(left)}, and --timeout has passed. `segrelay status` "
                    "tells what they wait for; they stay in Redis."
                )
                return left
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
            if left:
                time.sleep(_WATCHING_POLL_SECONDS)
    return 0


def _count_waiting(client: Redis, settings: Settings, sent: str | Published) -> int:
    """Estimate how many of these deliveries wait; 0 if and only if none does.

    Others in their streams may be counted, as long as one of them is there.
    """
    from segrelay.ops.state.partitions import all_partitions, ask_each  # noqa: PLC0415 - see below
    from segrelay.ops.state.waiting import Choice, find_streams  # noqa: PLC0415 - see below

    if isinstance(sent, str):
        partitions = all_partitions(client, settings)
        return sum(one.length for one in find_streams(client, partitions, Choice(job=sent)))
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
    from segrelay.ops.state.waiting import Choice, find_streams  # noqa: PLC0415 - see above
    from segrelay.ops.status.standing import read_standing  # noqa: PLC0415 - see above

    job = sent if isinstance(sent, str) else ""
    if isinstance(sent, str):
        streams = find_streams(client, all_partitions(client, settings), Choice(job=sent))
        triggers = {one.trigger for one in streams}
    else:
        triggers = {name.rpartition("|")[2] for name in sent.entries}
    return list(read_standing(client, settings).stops(triggers, job))


def is_worked(client: Redis) -> bool:
    """Say whether a worker runs."""
    return any(one.kind == WORKER for one in read_processes(client, []))


def _still_waiting(count: int) -> str:
    return f"Still waiting: {plural(count, 'delivery', 'deliveries')}"

"""Sending payloads in batches: which are surely in Redis, and the wait until all are settled."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from segrelay.ops.state.partitions import all_partitions, ask_each
from segrelay.ops.state.waiting import Choice, find_streams
from segrelay.ops.status.standing import read_standing
from segrelay.ops.terminal.console import progress
from segrelay.ops.terminal.interrupts import Interruption
from segrelay.producer.events.payloads import Payload, is_row, is_timeless
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import Published, PublishOptions
from segrelay.producer.publishing.writing import Room
from segrelay.producer.sources.files import rows_hint
from segrelay.worker.contract.patience import READY_SECONDS
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.settings import Settings
from segrelay.worker.errors import RedisUnavailable, UsageWrong

_FULL_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.2
_TOLD_AGAIN_SECONDS: Final = 10.0
_ROWS_BELIEVED: Final = 10
"""The rows of a live pipe after which it is refused if none of them holds an event."""


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


@dataclass(frozen=True, slots=True)
class Target:
    """The lane, job and publisher that payloads are sent with.

    Args:
        digest: Of the source, with which an interrupted job goes on where it stopped; "" = it
            can't.
        dry_run: True if nothing is written, so that there need be no room.
        older_than_ledger: Accept also events that are older than what the ledger remembers.
        away_seconds: The longest wait for a Redis that is away.
    """

    publisher: Publisher
    name: str
    lane: str
    job: str
    digest: str
    skip_hook: bool | None
    dry_run: bool
    away_seconds: float = READY_SECONDS
    older_than_ledger: bool = False


class Sending:
    """One run over the payloads of a source."""

    def __init__(
        self,
        target: Target,
        deadline: Deadline,
        interruption: Interruption,
        tell: Callable[[str], None],
    ) -> None:
        self._tell = tell
        self._target = target
        self._deadline = deadline
        self._interruption = interruption
        self._position = 0
        self._last: Sequence[Payload] = ()
        self._in_flight: Sequence[Payload] = ()
        self.published = Published()

    def run(
        self, batches: Iterable[Sequence[Payload]], advance: Callable[[int], None], *, is_live: bool
    ) -> None:
        """Publish the batches of a source, and wait where Redis has no room.

        Raises:
            RedisUnavailable: With what is surely in Redis, and how to go on.
            UsageWrong: The source holds rows without events.
            KeyboardInterrupt, SystemExit: It was interrupted, and has said the same.
        """
        try:
            for batch in batches:
                self._refuse_rows(batch, is_live=is_live)
                self._add(self._publish(batch), batch)
                advance(len(batch))
            self._interruption.obey()
        except (KeyboardInterrupt, SystemExit):
            self._tell(f"Interrupted. {self._how_to_go_on()}")
            raise

    def _add(self, published: Published, batch: Sequence[Payload]) -> None:
        self.published += published
        self._position += len(batch)
        self._last, self._in_flight = batch, ()

    def _refuse_rows(self, batch: Sequence[Payload], *, is_live: bool) -> None:
        """Refuse a source whose first rows hold no events at all."""
        if self._position or (is_live and len(batch) < _ROWS_BELIEVED):
            return
        readable = [payload.value for payload in batch if not payload.error]
        values = [
            one for value in readable for one in (value if isinstance(value, list) else [value])
        ]
        if values and all(map(is_row, values)):
            name = self._target.name
            raise UsageWrong(
                f"{name} holds profiles without `segment_events`: what `segrelay send` takes are "
                f"events. Nothing was sent. {rows_hint(name).capitalize()}"
            )

    def _publish(self, batch: Sequence[Payload]) -> Published:
        """Publish a batch; repeat it while Redis is away if that is harmless.

        It is for a job, by its positions, and for events, since what is there twice is delivered
        once. Changes without a time are as new each time.
        """
        target = self._target
        begun = time.monotonic()
        position = self._position + len(batch) if target.digest else None
        options = PublishOptions(
            target.lane,
            target.job,
            skip_hook=target.skip_hook,
            older_than_ledger=target.older_than_ledger,
        )
        while True:
            self._await_room()
            self._in_flight = batch
            try:
                return target.publisher.publish(
                    batch, options, position=position, source=target.digest
                )
            except RedisUnavailable as error:
                if not self._may_repeat(batch) or self._deadline.passed(
                    since=begun, unless_given=target.away_seconds
                ):
                    raise RedisUnavailable(f"{error.message} {self._how_to_go_on()}") from error
            self._pause()

    def _may_repeat(self, batch: Sequence[Payload]) -> bool:
        return bool(self._target.digest) or not any(is_timeless(each.value) for each in batch)

    def _await_room(self) -> None:
        """Wait until Redis has room, and print what is waited for."""
        if self._target.dry_run:
            return
        begun = time.monotonic()
        told_at = begun - _TOLD_AGAIN_SECONDS
        while True:
            borne_seconds: float | None = None
            try:
                room = self._target.publisher.room(self._target.lane)
                if isinstance(room, Room):
                    return
                message = room.message
                borne_seconds = _FULL_SECONDS if room.reason == "memory" else None
            except RedisUnavailable as error:
                message = error.message
                borne_seconds = self._target.away_seconds
            if self._deadline.passed(since=begun, unless_given=borne_seconds):
                raise RedisUnavailable(f"{message} {self._how_to_go_on()}")
            if time.monotonic() - told_at >= _TOLD_AGAIN_SECONDS:
                self._tell(f"waiting: {message}")
                told_at = time.monotonic()
            self._pause()

    def _pause(self) -> None:
        self._interruption.obey()
        time.sleep(_POLL_SECONDS)

    def _how_to_go_on(self) -> str:
        """Return a message that says which lines are surely in Redis, and how to send the rest.

        The last line that was published may hold more payloads, or be the first of many that
        belong to one: it is named as the first one to send again.
        """
        line = self._last[-1].line if self._last else 1
        sure = f"Everything before line {line} is in Redis" if self._last else "Nothing is sure yet"
        if self._target.digest:
            return f"{sure}; the same command goes on exactly where it stopped."
        if not self._in_flight:
            sure += ", and nothing behind that line" if self._last else ": nothing was written"
        if self._may_double(line):
            return (
                f"{sure}. Among what may be there twice, if all from line {line} on is sent again, "
                "are changes without a time: these would be delivered twice."
            )
        return (
            f"{sure}. Sending all from line {line} on again is safe: what is there twice is "
            "delivered once."
        )

    def _may_double(self, line: int) -> bool:
        unsure = [payload for payload in self._last if payload.line >= line]
        return any(is_timeless(payload.value) for payload in (*unsure, *self._in_flight))


_WATCHING_POLL_SECONDS: Final = 0.3
_WATCHING_TOLD_AGAIN_SECONDS: Final = 15.0
_ASKED_AGAIN_SECONDS: Final = 3.0


def waiting_of_job(client: Redis, settings: Settings, job: str) -> int:
    """Return the number of deliveries of a job that wait."""
    places = all_partitions(client, settings)
    return sum(stream.length for stream in find_streams(client, places, Choice(job=job)))


def waiting_of(client: Redis, published: Published) -> int:
    """Estimate how many of these deliveries wait; 0 if and only if none does.

    Others in their streams may be counted, as long as one of them is there.
    """
    answers = ask_each(
        client,
        published.entries.items(),
        lambda pipe, entry: pipe.xlen(entry[0]),
        lambda pipe, entry: pipe.xrange(entry[0], entry[1].first, entry[1].last, count=1),
    )
    looks = zip(answers[::2], answers[1::2], strict=True)
    waiting: int = sum(length for length, found in looks if found)
    return min(waiting, published.accepted)


def hindrances(
    client: Redis, settings: Settings, triggers: Collection[str], job: str = ""
) -> list[str]:
    """Return what stops the deliveries of these triggers, or of a job."""
    return list(read_standing(client, settings).stops(triggers, job))


def triggers_of(streams: Iterable[str]) -> frozenset[str]:
    """Return the triggers of streams, by the streams' keys or names."""
    return frozenset(name.rpartition("|")[2] for name in streams)


def triggers_of_job(client: Redis, settings: Settings, job: str) -> frozenset[str]:
    """Return the triggers for which deliveries of a job wait."""
    places = all_partitions(client, settings)
    return frozenset(one.trigger for one in find_streams(client, places, Choice(job=job)))


class _ReasonPrinter:
    """Prints new reasons at once, and repeats unchanged ones from time to time."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: Sequence[str] = ()
        self._told_at = -math.inf

    def tell(self, found: Sequence[str]) -> None:
        if found == self._told and time.monotonic() - self._told_at < _WATCHING_TOLD_AGAIN_SECONDS:
            return
        self._told, self._told_at = found, time.monotonic()
        for sentence in found:
            self._tell(f"waiting: {sentence}")


@dataclass(frozen=True, slots=True)
class DeliveryWait:
    """The deliveries that a command waits for."""

    waiting: Callable[[], int]
    hindered: Callable[[], Sequence[str]]
    deadline: Deadline
    interruption: Interruption
    tell: Callable[[str], None]
    away_seconds: float = READY_SECONDS

    def until_settled(self) -> bool:
        """Show the progress until no delivery waits; return False if that takes too long."""
        left = self.waiting()
        with progress("settled", left) as shown:
            return self._look(left, shown.advance)

    def _look(self, left: int, advance: Callable[[int], None]) -> bool:
        alerts = _ReasonPrinter(self.tell)
        asked_at, answered_at = -math.inf, time.monotonic()
        while left:
            if self._ends(left):
                return False
            before = left
            try:
                if time.monotonic() - asked_at >= _ASKED_AGAIN_SECONDS:
                    asked_at = time.monotonic()
                    alerts.tell(self.hindered())
                left = min(left, self.waiting())
                answered_at = time.monotonic()
            except RedisUnavailable as error:
                if time.monotonic() >= answered_at + self.away_seconds:
                    raise
                alerts.tell([error.message])
            advance(before - left)
            if left:
                time.sleep(_WATCHING_POLL_SECONDS)
        return True

    def _ends(self, left: int) -> bool:
        if self.interruption.is_requested:
            self.tell(f"Interrupted. {left:,} deliveries still wait; they stay in Redis.")
            self.interruption.obey()
        if not self.deadline.passed():
            return False
        self.tell(
            f"{left:,} deliveries still wait, and --timeout has passed. `segrelay status` tells "
            "what they wait for; they stay in Redis."
        )
        return True

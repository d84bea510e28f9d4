"""Sending payloads in batches, and recording which ones are surely in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ops.terminal.interrupts import Interruption
from producer.events.payloads import Payload, is_timeless
from producer.events.rows import is_row
from producer.publish import Publisher
from producer.publishing.published import Published, PublishOptions
from producer.publishing.room import Room
from producer.sources.files import rows_hint
from worker.contract.patience import READY_SECONDS
from worker.errors import RedisUnavailable, UsageWrong

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
        dry_run: Nothing is written, so there need be no room.
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

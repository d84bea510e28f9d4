"""Writing outcomes to rolling files: a background job of the workers, one step at a time.

A file covers a part of each partition's stream. What it covers is planned and kept in Redis before
it is written, and its name follows from that. Positions move on only when the file stands. So a
step that died is done again with the same plan: it finds the file, or writes it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import orjson
import structlog
from celery import shared_task

from segrelay.ops.outcomes.files import NAME_PREFIX, format_of, open_target, row_file
from segrelay.ops.outcomes.reading import (
    Plan,
    Position,
    Recorded,
    WritingState,
    entries,
    first_ms,
    read_recorded,
    rows_of,
    store_for,
    with_positions,
)
from segrelay.ops.state import opened
from segrelay.producer.steps import Step, StepStore, wait_seconds
from segrelay.producer.tasks import client_of, do_background_job
from segrelay.worker.contract.celery import OUTCOMES_TASK, BackgroundJob, ResultLine, Turn, Turns
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.outcomes import Recording
from segrelay.worker.contract.printable import plural
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import script_call
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings.sections import OutcomesSettings
from segrelay.worker.errors import LeaseLost, OperationsMustAct, RedisUnavailable, SegrelayError

LOG: Final = structlog.get_logger()
FILE_BYTES: Final = 8 * 1024 * 1024
"""The bytes of rows in Redis that one file covers at most: about 200,000 rows, or 3 s of work."""
FULL_SHARE: Final = 0.25
"""The share of a partition's room that unwritten rows may take before a file is written early."""
LOOK_SECONDS: Final = 10.0
"""The seconds between two looks whether a file is due."""
SETTLE_MS: Final = 1_000
"""The time after the end of a period until its file is written."""
HOLD_SECONDS: Final = 2.0
"""The seconds after which a step that writes extends its lock."""
_PASSED_AT_ONCE: Final = 50
_JOB: Final = "outcomes"


@dataclass(slots=True)
class OutcomeWriting:
    """Writes the outcomes that are due, and removes those that were kept long enough."""

    client: Redis
    settings: Settings
    wanted: OutcomesSettings
    monotonic: Callable[[], float] = time.monotonic

    def step(self) -> Step:
        """Write one file, if one is due; that takes seconds, and is not broken off for a drain.

        Raises:
            RedisUnavailable: A later step goes on where this one was.
        """
        store = store_for(self.client)
        taken = store.take()
        if taken is None:
            return Step("another step of it is under way", taken=False)
        state, now_ms = WritingState.loads(taken[0]), taken[1]
        found = read_recorded(self.client, self.settings)
        wait, line, more = LOOK_SECONDS, "no file is due", False
        try:
            if self.wanted.folder and self._plan(state, found, now_ms):
                more = True
                line = self._write(store, state)
                state.failures, state.failing_since_ms, state.problem = 0, 0, ""
        except LeaseLost as error:
            return Step(error.message, taken=False)
        except RedisUnavailable:
            raise
        except OperationsMustAct as error:
            # The plan stays: whether the file has appeared is not known.
            more, line = False, error.message
            state.failures, state.problem = state.failures + 1, error.message
            state.failing_since_ms = state.failing_since_ms or now_ms
            wait = min(LOOK_SECONDS, wait_seconds(state.failures))
            LOG.warning("outcomes.wait", failures=state.failures, reason=error.message)
        next_ms = 0 if more else now_ms + round(1_000 * wait)
        try:
            store.save(state.dumps(), next_ms=next_ms)
            self._pass(state, found, now_ms)
            store.save(state.dumps(), next_ms=next_ms, ends=True)
        except LeaseLost as error:
            return Step(error.message, taken=False)
        return Step(line, more=more, wait_seconds=wait)

    def _plan(self, state: WritingState, found: Sequence[Recorded], now_ms: int) -> bool:
        """Plan the next file if one is due, unless one is planned; say whether there is a plan."""
        if state.plan:
            return True
        due = self._due(state, found, now_ms)
        if due is None:
            return False
        begin_ms, cut_ms = due
        late = [one for one in with_positions(found, state) if one.unwritten_rows]
        share = FILE_BYTES // max(1, len(late))
        parts = {}
        for one in late:
            last = self._last(one, cut_ms, share)
            if last:
                # What was dropped for want of room is in no file.
                rows = max(one.written.rows, one.gone_rows)
                parts[one.partition.tag] = (one.written._replace(rows=rows), last)
        if not parts:
            return False
        state.plan = Plan(self._name(begin_ms, parts), parts)
        return True

    def _due(
        self, state: WritingState, found: Sequence[Recorded], now_ms: int
    ) -> tuple[int, int] | None:
        """Return begin and end (ms) of the time that is to be written; None = nothing is due."""
        known = with_positions(found, state)
        earliest_ms = first_ms(self.client, known)
        if not earliest_ms:
            return None
        every_ms = round(1_000 * self.wanted.every_seconds)
        begin_ms = earliest_ms // every_ms * every_ms
        if now_ms >= begin_ms + every_ms + SETTLE_MS:
            return begin_ms, begin_ms + every_ms
        recording = Recording.of(self.settings)
        most = recording.most_bytes if recording else 0
        waiting = [one.unwritten_size for one in known]
        if sum(waiting) >= FILE_BYTES or max(waiting) >= FULL_SHARE * most:
            return begin_ms, now_ms
        return None

    def _last(self, one: Recorded, cut_ms: int, share: int) -> Position | None:
        """Return the last entry before a time, or an earlier one if that were too much."""
        first, last = f"({one.written.entry_id}", str(cut_ms - 1)
        newest: Any = self.client.xrevrange(one.partition.outcomes, last, first, count=1)
        if not newest:
            return None
        position = Position.of(newest[0])
        begin = max(one.written.size, one.gone_size)
        if position.size - begin <= share:
            return position
        for entry in entries(self.client, one.partition, first, last):
            position = Position.of(entry)
            if position.size - begin >= share:
                break
        return position

    def _name(self, begin_ms: int, parts: dict[str, tuple[Position, Position]]) -> str:
        covered = sorted((tag, a.entry_id, b.entry_id) for tag, (a, b) in parts.items())
        short = hashlib.blake2b(orjson.dumps(covered), digest_size=6).hexdigest()
        begin = datetime.fromtimestamp(begin_ms / 1_000, UTC)
        return f"{NAME_PREFIX}{begin:%Y%m%dT%H%M%SZ}-{short}.{self.wanted.format}"

    def _write(self, store: StepStore, state: WritingState) -> str:
        """Write the planned file, and move the positions on."""
        plan = state.plan
        assert plan is not None
        target = open_target(self.wanted.folder)
        hold_at = self.monotonic() + HOLD_SECONDS

        def confirm() -> None:
            store.save(state.dumps(), next_ms=0)

        def between() -> None:
            nonlocal hold_at
            if self.monotonic() >= hold_at:
                confirm()
                hold_at = self.monotonic() + HOLD_SECONDS

        def write(stream: BinaryIO) -> None:
            file = row_file(format_of(plan.name), stream, self.wanted.fields)
            for rows in rows_of(self.client, self._ranges(plan), between):
                file.write(rows)
            file.close()

        confirm()
        target.put(plan.name, write, confirm)
        for tag, (_, last) in plan.parts.items():
            state.positions[tag] = last
        state.plan = None
        state.files, state.rows = state.files + 1, state.rows + plan.rows
        state.last_ms = store.now_ms()
        LOG.info("outcomes.written", file=plan.name, rows=plan.rows)
        return f"{plural(plan.rows, 'row')} written to {plan.name}"

    def _ranges(self, plan: Plan) -> Iterator[tuple[PartitionKeys, str, str]]:
        for tag, (first, last) in sorted(plan.parts.items()):
            partition = self._partition(tag)
            yield partition, f"({first.entry_id}", last.entry_id

    def _partition(self, tag: str) -> PartitionKeys:
        destination_id, _, number = tag.strip("{}").rpartition(":")
        return self.settings.redis.ids.partition_of(destination_id, int(number))

    def _pass(self, state: WritingState, found: Sequence[Recorded], now_ms: int) -> None:
        """Tell the partitions what is written, and remove what was kept long enough."""
        before_ms = now_ms - round(1_000 * self.wanted.keep_seconds)
        numbers = self.settings.redis.numbering.numbers
        left = list(found)
        while left:
            calls = []
            for one in left:
                written = state.positions.get(one.partition.tag, Position())
                calls.append(
                    script_call(
                        opened.source("outcomes_pass"),
                        one.partition,
                        written=written.entry_id if self.wanted.folder else "",
                        rows=written.rows,
                        bytes=written.size,
                        before=before_ms,
                        most=_PASSED_AT_ONCE,
                        former=int(one.partition.number not in numbers),
                    )
                )
            removed = opened.run(self.client, "outcomes_pass", calls)
            left = [
                one for one, count in zip(left, removed, strict=True) if count == _PASSED_AT_ONCE
            ]


def writing_for(client: Redis, settings: Settings) -> OutcomeWriting | None:
    """Return the writing of outcomes, ready to do steps; None where none are recorded."""
    return OutcomeWriting(client, settings, settings.outcomes) if settings.outcomes else None


@shared_task(name=OUTCOMES_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def write_outcomes(self: Any, name: str, _: str) -> ResultLine:
    """Write a file of outcomes, if one is due."""
    return do_background_job(self.app.segrelay, BackgroundJob(OUTCOMES_TASK, name), _step)


def _step(node: Turns, _name: str, _turn: Turn) -> tuple[str, bool]:
    writing = writing_for(client_of(node), node.settings)
    if writing is None:
        return "no outcomes are recorded", False
    step = writing.step()
    return step.line, step.more

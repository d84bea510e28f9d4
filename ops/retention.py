"""Retention: dead letters and quarantined records are dropped after a time, and announced before.

It is a background job of the workers, a step every minute. Each step notes what it announces, which
is what health names from then on: all that is going to be old enough within `retention.warning`.
Only what was announced for that long is dropped; see `segrelay.ops.state.retention`.

Letters are discarded by the script by which a person discards them, so that the counts and the rows
about outcomes stay right; see `leave.lua`. The history, the requests to the receiver and the
minutes of jobs are trimmed without a word. Backfills that are over are forgotten once they are as
old as the history, by the scripts by which a watch forgets its own; see `JobStore.forget`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from celery import shared_task

from segrelay.ops.dead_letters.commands import DeadLetters, Expiry
from segrelay.ops.state import opened
from segrelay.ops.state.partitions import all_partitions, ask_each
from segrelay.ops.state.retention import (
    JOBS,
    MARKS,
    RECORDS,
    Limit,
    RetentionState,
    droppable_before_ms,
    ever_dropped,
    limits_of,
    marked,
    store_for,
)
from segrelay.producer.backfill.jobs import JobStore
from segrelay.producer.publishing.quarantine import Quarantine
from segrelay.producer.steps import LOCK_MS, Step, StepStore
from segrelay.producer.tasks import client_of, do_background_job
from segrelay.worker.contract import keys
from segrelay.worker.contract.celery import RETENTION_TASK, BackgroundJob, ResultLine, Turn, Turns
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.acts import Act, note_act
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import script_call
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.triggers import read_pauses
from segrelay.worker.errors import SegrelayError

LOG: Final = structlog.get_logger()
DROPPED_AT_ONCE: Final = 200
"""The most letters, and the most records, that one step drops."""
JOBS_AT_ONCE: Final = 10
"""The most backfills that one step forgets."""
_STEP_SECONDS: Final = 60.0
_MINUTE_MS: Final = 60_000
_FIELDS_AT_ONCE: Final = 1_000
"""The most fields, or entries of the outcome log, that one call removes."""
_TOLD_AGAIN_MS: Final = 3_600_000
"""The time between two acts in the audit: the newest thousands of them are kept."""


@dataclass(slots=True)
class Retention:
    """Drops old dead letters and quarantined records, a step at a time, after announcing them."""

    client: Redis
    settings: Settings

    def step(self) -> Step:
        """Announce the things that go soon, and drop some that were announced for long enough.

        Raises:
            RedisUnavailable: A later step goes on where this one was.
        """
        store = store_for(self.client)
        return store.step(partial(self._step, store))

    def _step(self, store: StepStore[RetentionState], state: RetentionState, now_ms: int) -> Step:
        limits = limits_of(self.settings.retention)
        state.marks = {
            what: marked(
                state.marks.get(what, ()), limit, now_ms=now_ms, seen_ms=state.seen_ms or now_ms
            )
            for what, limit in limits.items()
        }
        state.seen_ms = now_ms
        partitions = all_partitions(self.client, self.settings)
        dropped = dict(self._drop(partitions, limits, state, now_ms))
        self._trim_logs(partitions, now_ms)
        self._trim_minutes(partitions, now_ms)
        self._reopen(partitions, now_ms)
        more = max(dropped.values(), default=0) >= DROPPED_AT_ONCE
        for what, count in dropped.items():
            if count:
                state.dropped_ms[what] = now_ms
                LOG.info("retention.dropped", what=what, count=count)
        if not more:
            self._tell(partitions, state, now_ms)
        wait = min([_STEP_SECONDS, *(one.warning_ms / 1_000 / MARKS for one in limits.values())])
        store.save(state, next_ms=0 if more else now_ms + round(1_000 * wait), ends=True)
        line = ", ".join(f"{count:,} {what}" for what, count in dropped.items() if count)
        return Step(f"dropped: {line or 'nothing'}", more=more, wait_seconds=wait)

    def _drop(
        self,
        partitions: Sequence[PartitionKeys],
        limits: Mapping[str, Limit],
        state: RetentionState,
        now_ms: int,
    ) -> Iterator[tuple[str, int]]:
        """Drop some things that may go; yield the number of each kind."""
        for what, limit in limits.items():
            before_ms = droppable_before_ms(state.marks[what], limit, now_ms)
            if before_ms <= 0:
                continue
            # The lock that this step holds has not lapsed before: nobody has read another
            # configuration since, and keeps them for longer.
            expiry = Expiry(before_ms, now_ms + LOCK_MS)
            if what == RECORDS:
                quarantine = Quarantine(self.client)
                yield (
                    what,
                    quarantine.remove_expired(
                        before_ms=before_ms, most=DROPPED_AT_ONCE, until_ms=expiry.until_ms
                    ),
                )
            elif what == JOBS:
                yield what, self._forget_jobs(partitions, expiry)
            else:
                yield what, self._drop_letters(partitions, expiry)

    def _forget_jobs(self, partitions: Sequence[PartitionKeys], expiry: Expiry) -> int:
        """Forget some backfills that are over since before a time, and return how many."""
        store, forgotten = JobStore(self.client), 0
        paused = read_pauses(self.client).jobs
        for job in store.ended(expiry.before_ms):
            name = job.spec.name
            if name in paused:
                continue
            act = Act("retention", "segrelay", f"backfill {name}", key=f"{name}|{job.since_ms}")
            forgotten += store.forget(
                job,
                partitions,
                before_ms=expiry.before_ms,
                until_ms=expiry.until_ms,
                note=partial(note_act, self.client, act),
            )
            if forgotten == JOBS_AT_ONCE:
                break
        return forgotten

    def _drop_letters(self, partitions: Sequence[PartitionKeys], expiry: Expiry) -> int:
        """Discard some letters that have died before a time, and return how many."""
        found = ask_each(
            self.client,
            partitions,
            lambda pipe, at: pipe.zrangebyscore(
                at.dead_letter_times, "-inf", f"({expiry.before_ms}", start=0, num=DROPPED_AT_ONCE
            ),
        )
        letters, dropped = DeadLetters(self.client, self.settings), 0
        for partition, ids in zip(partitions, found, strict=True):
            part = [one.decode() for one in ids[: DROPPED_AT_ONCE - dropped]]
            dropped += letters.discard_expired(partition, part, expiry)
        return dropped

    def _trim_logs(self, partitions: Sequence[PartitionKeys], now_ms: int) -> None:
        kept_ms = round(1_000 * self.settings.retention.history_seconds)
        if not kept_ms:
            return
        self.client.xtrim(keys.REQUESTS, minid=now_ms - kept_ms, approximate=False)
        script, before = opened.source("outcomes_trim"), now_ms - kept_ms
        calls = [script_call(script, at, before=before, most=_FIELDS_AT_ONCE) for at in partitions]
        opened.run(self.client, "outcomes_trim", calls)

    def _trim_minutes(self, partitions: Sequence[PartitionKeys], now_ms: int) -> None:
        """Remove from Redis how many deliveries a job settled in minutes that are long over.

        Reports of jobs tell it for as long as the ledger is kept. The minutes are fields of one
        hash, which goes once no job settles anything for that long: where there is a job every
        night, it never would. Each minute one partition has its turn.
        """
        if not partitions:
            return
        minute = now_ms // _MINUTE_MS
        key = partitions[minute % len(partitions)].jobtimes
        kept_seconds = self.settings.delivery.ledger_retention_seconds
        before = minute - math.ceil(1_000 * kept_seconds / _MINUTE_MS)
        fields: Any = self.client.hkeys(key)
        gone = [each for each in fields if int(each.split(b"|")[1]) < before]
        for first in range(0, len(gone), _FIELDS_AT_ONCE):
            self.client.hdel(key, *gone[first : first + _FIELDS_AT_ONCE])

    def _reopen(self, partitions: Sequence[PartitionKeys], now_ms: int) -> None:
        """Forget that partitions are closed to backfills that were forgotten long ago.

        Each minute one partition has its turn. What a reader writes that stood still for longer
        has a time that the ledger does not remember any more.
        """
        if partitions:
            kept_ms = round(1_000 * self.settings.delivery.ledger_retention_seconds)
            partition = partitions[now_ms // _MINUTE_MS % len(partitions)]
            JobStore(self.client).reopen(partition, now_ms - kept_ms)

    def _tell(
        self, partitions: Sequence[PartitionKeys], state: RetentionState, now_ms: int
    ) -> None:
        """Note in the audit how many things were dropped since its last act about them.

        All that were ever dropped are counted by the scripts that drop them. So if a step dies
        here, the next one tells of it, once: the act has the number in its key.
        """
        for what, count in ever_dropped(self.client, partitions).items():
            told, told_ms = state.told.get(what, 0), state.told_ms.get(what, 0)
            if count < told:
                state.told[what] = count  # a destination is not there any more
            elif count > told and not 0 <= now_ms - told_ms < _TOLD_AGAIN_MS:
                act = Act("retention", "segrelay", what, count - told, key=f"{what}|{count}")
                note_act(self.client, act)
                state.told[what], state.told_ms[what] = count, now_ms


@shared_task(name=RETENTION_TASK, bind=True, throws=(SegrelayError,), ignore_result=True)
def retain(self: Any, name: str) -> ResultLine:
    """Do one step of retention, as a Celery task."""
    return do_background_job(self.app.segrelay, BackgroundJob(RETENTION_TASK, name), _step)


def _step(node: Turns, _name: str, _turn: Turn) -> Step:
    return Retention(client_of(node), node.settings).step()
